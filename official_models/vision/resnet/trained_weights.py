"""A network's weights from the model.keras of another run."""

import zipfile
from pathlib import Path

import keras

from official_models.common.errors import InputError


def load_into(model: keras.Model, path: str) -> None:
    """Gives every variable of a model the value it has in a `.keras` file.

    Args:
        model: built; its optimizer is left alone.
        path: a file that `model.save` wrote.

    Raises:
        InputError: it cannot be read, or is of another network.
    """
    file = Path(path)
    where = f"--init_checkpoint {path}"
    if not file.is_file():
        raise InputError(f"{where}: no such file; expected a model.keras")
    if file.suffix != ".keras" or not zipfile.is_zipfile(file):
        raise InputError(f"{where}: no .keras file, or damaged")
    try:
        saved = keras.saving.load_model(file, compile=False)
    # Keras passes on whatever a damaged archive raises.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: cannot be read: {reason}") from error
    theirs = {v.path: v for v in saved.variables}
    ours = {v.path: v for v in model.variables}
    for path in [*ours, *theirs]:
        there, here = (
            f"{tuple(side[path].shape)}" if path in side else "none"
            for side in (theirs, ours)
        )
        if there != here:
            raise InputError(
                f"{where}: is of another network ({saved.name}, this one is "
                f"{model.name}): it has {path} {there}, this one {here}; give "
                "the --network, --width and the like that it was trained with"
            )
    for path, variable in ours.items():
        variable.assign(theirs[path])
