"""Settings of all tests: logical devices, and the table at the end."""

import gc
import importlib.metadata
import importlib.util
import os
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")


def _is(package, version):
    """Whether a package is missing, or has this major and minor version."""
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return True
    return found.startswith(f"{version}.")


def _installed(package):
    return importlib.util.find_spec(package) is not None


def _quick_xla():
    """Flags by which XLA compiles in a fraction of the time.

    Most programs of these tests are small, new and run a few times. Kernels do
    the same operations in the same precision. QUICK_XLA=0 leaves XLA as users
    have it.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend == "torch" or os.environ.get("QUICK_XLA") == "0":
        return []
    if _installed("libtpu"):
        return []  # What a TPU's compiler does is itself under test.
    # A process ends where XLA finds a flag that it does not know, as those of
    # JAX 0.12 and of TensorFlow 2.16 do.
    known = {"tensorflow": "2.21", "tensorflow-cpu": "2.21", "jaxlib": "0.10"}
    if not all(_is(*package) for package in known.items()):
        return []
    quick = [
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
    if backend == "tensorflow":
        quick.append("--xla_llvm_disable_expensive_passes=true")
    return quick


# Before TensorFlow or JAX is imported, and for processes that tests start. What
# is in XLA_FLAGS already comes last, which is what counts.
XLA_FLAGS = [*_quick_xla(), os.environ.get("XLA_FLAGS", "")]
if os.environ.get("KERAS_BACKEND") == "jax":
    # Devices for keras.distribution.
    XLA_FLAGS.append("--xla_force_host_platform_device_count=8")
os.environ["XLA_FLAGS"] = " ".join(filter(None, XLA_FLAGS))


def pytest_report_header(config):
    return f"keras backend: {os.environ.get('KERAS_BACKEND', 'tensorflow')}"


def pytest_configure(config):
    # Graphs leave millions of objects behind, few of them garbage: to search
    # them as often as Python does takes up to an eighth of the time.
    gc.set_threshold(50_000, 10, 10)
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
