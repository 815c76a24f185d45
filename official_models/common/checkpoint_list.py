"""The checkpoints of a folder, found by their files.

TensorFlow keeps a list of them, the file `checkpoint`, and looks nowhere else.
Where that file is missing, damaged or of an earlier time, a run would begin
anew, or from an older step, and write over what it had reached.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import tensorflow as tf

from official_models.common.errors import first_line

LIST = "checkpoint"
_INDEX = re.compile(r"(.+-(\d{1,18}))\.index")


def saved_steps(folder: Path | str) -> dict[int, str]:
    """{step: path} of the checkpoints in a folder, the last one last.

    Those of TensorFlow's list, and newer ones that are whole, which are read
    through for that; without a list, all that are whole.

    Args:
        folder: here or behind a URL; need not exist.
    """
    listed, _ = _read_list(str(folder))
    newest = max(listed, default=-1)
    found = {
        step: path
        for step, path in _by_files(str(folder)).items()
        if step > newest and _damage(path) is None
    }
    return dict(sorted({**listed, **found}.items()))


def mend(folder: Path | str) -> str:
    """Writes TensorFlow's list anew where it lacks the newest checkpoint.

    Args:
        folder: here or behind a URL; need not exist.

    Returns:
        What was found, in a line; empty if nothing was.
    """
    folder = str(folder)
    listed, fault = _read_list(folder)
    found = saved_steps(folder)
    if not fault and [*listed] == [*found]:
        return ""
    path = _list_of(folder)
    if not found:
        if tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)  # TensorFlow ends at one that is empty.
        return f"{path}: {fault}, and no checkpoint beside it is whole."
    paths = [*found.values()]
    # Without times, CheckpointManager would delete none of them later.
    tf.compat.v1.train.update_checkpoint_state(
        folder,
        paths[-1],
        paths,
        all_model_checkpoint_timestamps=[
            float(i + 1) for i in range(len(paths))
        ],
        last_preserved_timestamp=0.0,
    )
    reason = fault or "the list lacks the newest checkpoint"
    return f"{path}: {reason}; found by its files: {paths[-1]}."


def _list_of(folder: str) -> str:
    return f"{folder.rstrip('/')}/{LIST}"


def _read_list(folder: str) -> tuple[dict[int, str], str]:
    """{step: path} of the list, and what is wrong with it, if anything is."""
    if not tf.io.gfile.exists(_list_of(folder)):
        return {}, "the list is missing" if _by_files(folder) else ""
    try:
        state = tf.train.get_checkpoint_state(folder)
    except (tf.errors.OpError, ValueError) as error:  # not UTF-8; empty
        return {}, f"the list is damaged ({first_line(error)})"
    if state is None:  # TensorFlow has said that it cannot be parsed.
        return {}, "the list is damaged"
    steps = {}
    last = state.model_checkpoint_path
    for path in (*state.all_model_checkpoint_paths, last):
        match = _INDEX.fullmatch(f"{path}.index")
        if match and tf.io.gfile.exists(f"{path}.index"):
            steps[int(match[2])] = path
    fault = "" if last in steps.values() else f"{last} is not there"
    return dict(sorted(steps.items())), fault


def _by_files(folder: str) -> dict[int, str]:
    """{step: path} of the index files in a folder, by step."""
    if not tf.io.gfile.isdir(folder):
        return {}
    matches = map(_INDEX.fullmatch, tf.io.gfile.listdir(folder))
    steps = {int(m[2]): os.path.join(folder, m[1]) for m in matches if m}
    return dict(sorted(steps.items()))


def _damage(path: str) -> str | None:
    """What is wrong with a checkpoint's files; None if they can be read."""
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_dtype_map():
            reader.get_tensor(name)
    # A file that was cut short is an IndexError, a size that was damaged a
    # MemoryError.
    except (tf.errors.OpError, ValueError, LookupError, MemoryError) as error:
        return first_line(error)
    return None
