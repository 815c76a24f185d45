"""The scripts that `kills` kills: how each is started, and what it leaves."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.official_models import scripts
from tests.official_models.nlp.bert import pretrain_script
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.nlp.bert.finetuning.small_checkpoints import (
    bert_checkpoint,
)
from tests.tpu.estimator import bert_job, job_process

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Job:
    """A script and how it is held to what it leaves.

    Attributes:
        arguments: `arguments(inputs)`, of Python, all but the output folder.
        saves: pattern, below the output folder, of the files of a save.
        arrays: `arrays(folder)`, the weights that a run ended at, by name.
        python: the interpreter.
    """

    arguments: Callable[[Path], list[str]]
    saves: str
    arrays: Callable[[Path], Arrays]
    python: str = sys.executable

    def start(self, inputs: Path, folder: Path) -> subprocess.Popen:
        """The script as a process that writes to a folder."""
        return subprocess.Popen(
            [self.python, *self.arguments(inputs), f"--output_dir={folder}"],
            cwd=pretrain_script.ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


def write_inputs(folder: Path) -> None:
    """All that the jobs read: a corpus, a task, a checkpoint, records."""
    corpus = folder / "corpus"
    corpus.mkdir()
    pretrain_script.write_corpus(corpus)
    small_tasks.write_sst2(folder / "sst2", 96, 24)
    (folder / "model").mkdir()
    bert_checkpoint(folder / "model/hf", "classifier")
    (folder / "tpu").mkdir()
    bert_job.write_inputs(folder / "tpu")


def _pretraining(*more: str) -> Callable[[Path], list[str]]:
    words = ["-m", "official_models.nlp.bert.pretrain", *pretrain_script.SMALL]
    return lambda inputs: [*words, *more, f"--input={inputs / 'corpus'}"]


def _resnet(inputs: Path) -> list[str]:
    words = "-m official_models.vision.resnet.train --width=2 --epochs=3"
    return [*words.split(), "--global_batch_size=256", "--save_every=4"]


def _fine_tuning(inputs: Path) -> list[str]:
    words = (
        "-m official_models.nlp.bert.finetune_classifier --task_name=sst-2 "
        "--max_seq_length=16 --global_batch_size=8 --eval_batch_size=8 "
        "--epochs=2 --learning_rate=0.03 --seeds=3"
    )
    task, model = inputs / "sst2", inputs / "model/hf"
    return [*words.split(), f"--data_dir={task}", f"--init_checkpoint={model}"]


def _tpu(inputs: Path) -> list[str]:
    words = "--do_train --do_eval --num_train_steps=40 --max_eval_steps=5"
    return [
        *bert_job.command(inputs / "tpu", "unused", *words.split())[1:],
        "--save_checkpoints_steps=5",
    ]


def _of_step(step: int) -> Callable[[Path], Arrays]:
    def arrays(folder: Path) -> Arrays:
        found = scripts.variables(folder, step)
        found.pop("save_counter/.ATTRIBUTES/VARIABLE_VALUE", None)
        return found

    return arrays


def _of_seeds(folder: Path) -> Arrays:
    """The weights of every seed's `model.keras`."""
    found: Arrays = {}
    for path in sorted(folder.glob("seed_*/model.keras")):
        with zipfile.ZipFile(path) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content) as file:

            def keep(name, item, seed=path.parent.name):
                if isinstance(item, h5py.Dataset):
                    found[f"{seed}/{name}"] = item[()]

            file.visititems(keep)
    return found


def _of_tpu(folder: Path) -> Arrays:
    return job_process.weights(folder)


JOBS = {
    "pretrain": Job(_pretraining("--steps=40"), "checkpoints/*", _of_step(40)),
    "pretrain, two phases": Job(
        _pretraining("--steps=24", "--phase2_steps=8"),
        "checkpoints/*",
        _of_step(24),
    ),
    "resnet": Job(_resnet, "checkpoints/*", _of_step(48)),
    "fine-tuning, three seeds": Job(_fine_tuning, "seed_*/*", _of_seeds),
    "tpu.bert_pretraining": Job(
        _tpu,
        "model.ckpt-*",
        _of_tpu,
        str(pretrain_script.ROOT / ".venv-tf215/bin/python"),
    ),
}
