"""Every option of LAMB and LARS against the float64 reference, 30 steps."""

import pytest

from tests.keras2 import problems
from tests.keras3.problems import distance, run_reference
from tests.parity_cases import STEPS, cases, make
from tf_lamb import keras2


@pytest.mark.parametrize("optimizer, arguments, changes", list(cases()))
def test_equals_the_reference_over_30_steps(optimizer, arguments, changes):
    ours, reference = make(keras2, optimizer, arguments, changes)
    variables = problems.run(ours, STEPS)
    expected = run_reference(reference, STEPS)
    assert distance(problems.values_of(variables), expected) < 3e-6
    for name, ratio in ours.trust_ratios.items():
        assert ratio == pytest.approx(reference.trust_ratios[name], rel=1e-5)
    if ours.use_ema:
        names = [v.name.split(":")[0] for v in variables]
        averages = {
            name: mean.numpy().astype("float64")
            for name, mean in zip(names, ours._model_variables_moving_average)
        }
        assert distance(averages, reference.average) < 3e-6
