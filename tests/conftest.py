"""Settings of all tests: logical devices, and the table at the end."""

import os
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
if os.environ.get("KERAS_BACKEND") == "jax":
    # Before JAX is imported: devices for keras.distribution.
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_force_host_platform_device_count=8"
    )


def pytest_report_header(config):
    return f"keras backend: {os.environ.get('KERAS_BACKEND', 'tensorflow')}"


def pytest_configure(config):
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 4,
        )


@pytest.fixture(scope="session")
def mirrored():
    """MirroredStrategy on two of the logical CPUs."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"],
        cross_device_ops=tf.distribute.HierarchicalCopyAllReduce(),
    )


def pytest_terminal_summary(terminalreporter):
    table = sys.modules.get("tests.support_matrix.table")
    lines = table.summary() if table else []
    if lines:
        terminalreporter.section("front ends x strategies x features")
        terminalreporter.write_line(
            "Largest difference of a weight from the run on one device:"
        )
        for line in lines:
            terminalreporter.write_line(line)
