"""A variable in parts, on parameter servers, is as many layers as parts."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.keras2 import partitioned
from tests.processes import ROOT
from tf_lamb import keras2


def test_each_part_has_its_own_trust_ratio(tmp_path):
    file = tmp_path / "result.json"
    run = [sys.executable, "-m", "tests.keras2.partitioned", str(file)]
    result = subprocess.run(
        run,
        cwd=ROOT,
        env={**os.environ, "GRPC_FAIL_FAST": "use_caller"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    got = json.loads(file.read_text())
    # The same with two variables that nobody has split.
    parts = [tf.Variable(x, name=f"p{i}") for i, x in enumerate(got["initial"])]
    grads = [tf.reshape(g, (2, 1)) for g in tf.split(partitioned.INPUTS[0], 2)]
    optimizer = keras2.LAMB(**partitioned.ARGUMENTS)
    for _ in range(partitioned.STEPS):
        optimizer.apply_gradients(zip(grads, parts))
    for part, value in zip(parts, got["end"]):
        np.testing.assert_allclose(part.numpy(), value, rtol=0, atol=1e-6)
    names = ["kernel/part_0", "kernel/part_1"]
    ratios = optimizer.trust_ratios
    assert got["trust_ratios"] == {
        name: pytest.approx(ratios[f"p{i}"], rel=1e-5)
        for i, name in enumerate(names)
    }
    assert abs(ratios["p0"] - ratios["p1"]) > 0.01
