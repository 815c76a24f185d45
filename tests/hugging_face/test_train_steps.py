"""The peers of `benchmarks.train_step` on torch train, as ours does."""

import keras
import numpy as np
import pytest

from benchmarks import train_steps
from benchmarks.train_steps import Sizes

if keras.backend.backend() != "torch":
    pytest.skip("needs KERAS_BACKEND=torch", allow_module_level=True)

SMALL = Sizes("tiny", 2, 8, 2)
# torch.compile takes half a minute, and the same loss.
NAMES = [name for name in train_steps.STEPS["torch"] if "compiled" not in name]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_trains(name):
    step = train_steps.STEPS["torch"][name](SMALL)
    losses = [float(np.sum(step())) for _ in range(4)]
    assert np.isfinite(losses).all() and losses[3] < losses[0]
