"""Threads of TensorFlow, in processes that have one core."""

import subprocess
import sys

import keras
import pytest

from official_models.common import backend
from tests.processes import ROOT

NESTED = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import tensorflow as tf
from official_models.common import backend
print(backend.operation_threads())
backend.allow_nested_calls()
print(backend.operation_threads())
inner = tf.function(lambda x: tf.reduce_sum(tf.matmul(x, x)))
outer = tf.function(
    lambda x: tf.numpy_function(lambda y: inner(y).numpy(), [x], tf.float32)
)
print(float(outer(tf.ones((2, 2)))))
"""


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="threads of TensorFlow"
)
def test_a_call_within_a_call_ends_on_one_core():
    found = subprocess.run(
        [sys.executable, "-c", NESTED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.stdout.split() == ["1", "2", "8.0"], found.stderr


def test_a_thread_count_that_is_given(monkeypatch):
    monkeypatch.setattr(backend.processes, "cores", lambda: 5)
    monkeypatch.delenv("TF_NUM_INTEROP_THREADS", raising=False)
    assert backend.operation_threads() == 5
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "3")
    assert backend.operation_threads() == 3
