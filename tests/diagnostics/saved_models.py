"""A saved model and data for the command lines, and what these say."""

import keras
import numpy as np

import tf_lamb
from tf_lamb.diagnostics import __main__ as command


def classifier(folder, name="model.keras", seed=0, norm=False):
    """Saves a model of two classes, and 96 examples.

    Args:
      folder: for `name` and `data.npz`.
      name: of the model's file.
      seed: of its weights.
      norm: with batch normalisation.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((6,)), keras.layers.Dense(8, activation="tanh")]
    if norm:
        layers.append(keras.layers.BatchNormalization())
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_lamb.LAMB(0.01), loss)
    model.save(folder / name)
    random = np.random.default_rng(0)
    x = random.normal(size=(96, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    np.savez(folder / "data.npz", x=x, y=y)
    return model, x, y


def run(folder, name, *more, model="model.keras", data="data.npz"):
    """Runs a command on files of a folder; its status.

    Args:
      folder: of the files; output goes to `out` in it.
      name: of the command.
      *more: further arguments.
      model: a file.
      data: a file.
    """
    files = str(folder / model), str(folder / data)
    return command.main(
        [name, *files, "--output_dir", str(folder / "out"), *more]
    )


def refused(capsys, *arguments, **files):
    """The one line of a command that is refused.

    Args:
      capsys: of pytest.
      *arguments: of `run`.
      **files: of `run`.
    """
    capsys.readouterr()
    assert run(*arguments, **files) == 2
    lines = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("error: ")
    ]
    assert len(lines) == 1
    return lines[0]
