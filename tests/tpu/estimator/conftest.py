"""Keeps a job that is run in the tests' own process to itself."""

import pytest
import tensorflow as tf


@pytest.fixture(autouse=True)
def process_wide_switches(monkeypatch):
    """What a job switches for its process would hold for all later tests."""
    for owner, name in (
        (tf.config.experimental, "enable_op_determinism"),
        (tf.compat.v1, "disable_control_flow_v2"),
    ):
        monkeypatch.setattr(owner, name, lambda: None)
