"""Writes this folder anew: a checkpoint of tfa.optimizers.LAMB after 10 steps.

    .venv-tf215/bin/python -m tests.keras2.addons_checkpoint.write

`expected.npz` has the weights after 10 more. TensorFlow 2.15, tfa 0.23.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

from tests.keras2 import problems

FOLDER = Path(__file__).parent
ARGUMENTS = dict(weight_decay=0.05, exclude_from_weight_decay=["bias"])

if __name__ == "__main__":
    optimizer = tfa.optimizers.LAMB(0.02, **ARGUMENTS)
    variables = problems.run(optimizer, 10)
    checkpoint = tf.train.Checkpoint(optimizer=optimizer, variables=variables)
    checkpoint.write(str(FOLDER / "addons"))
    problems.run(optimizer, 10, first_step=10, variables=variables)
    np.savez(FOLDER / "expected.npz", **problems.values_of(variables))
