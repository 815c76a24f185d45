"""Local SGD in two processes, against the same trainings in one."""

import numpy as np
import pytest
import tensorflow as tf

import tf_lamb
from tests.multi_worker import local_worker
from tests.processes import Cluster


@pytest.fixture(
    scope="module", params=[False, True], ids=["keras3", "tf_keras"]
)
def folder(request, tmp_path_factory):
    """What two workers wrote."""
    folder = tmp_path_factory.mktemp("local")
    log = folder / "log.txt"
    legacy = {"TF_USE_LEGACY_KERAS": str(int(request.param))}
    module = "tests.multi_worker.local_worker"
    with Cluster({"worker": 2}, module, [folder], log, legacy) as cluster:
        codes = cluster.wait(timeout=150)
    assert codes == [0, 0], log.read_text()[-4000:]
    return folder


def ends(folder, task):
    """Weights of each worker, and its count of averages."""
    found = [np.load(folder / f"{task} {i}.npz") for i in range(2)]
    weights = [[f[n] for n in f.files if n != "averages"] for f in found]
    return weights, [int(f["averages"]) for f in found]


def simulated(steps):
    """Two models in one process, averaged every `steps` updates."""
    models = [local_worker.make_model(steps) for _ in range(2)]
    streams = zip(*(local_worker.batches(i) for i in range(2)))
    for k, both in enumerate(streams, start=1):
        for model, (x, y) in zip(models, both):
            model.train_on_batch(x, y)
        if k % steps == 0 or k == local_worker.STEPS:
            pairs = zip(*(model.get_weights() for model in models))
            mean = [(a + b) / 2 for a, b in pairs]
            for model in models:
                model.set_weights(mean)
    return mean


@pytest.mark.parametrize("task", local_worker.TASKS)
def test_workers_train_apart_and_average(folder, task):
    weights, averages = ends(folder, task)
    for a, b in zip(*weights):
        np.testing.assert_array_equal(a, b)
    steps = local_worker.TASKS[task]
    # After updates 4, 8 and 10, the last.
    assert averages == [{1: 10, 4: 3}[steps]] * 2
    for a, b in zip(weights[0], simulated(steps)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_every_update_is_synchronous_sgd(folder):
    """The same global batches on one device."""
    model = local_worker.make_model()
    for one, other in zip(*(local_worker.batches(i) for i in range(2))):
        model.train_on_batch(*map(np.concatenate, zip(one, other)))
    weights = ends(folder, "fit 1")[0][0]
    for a, b in zip(weights, model.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_workers_with_other_numbers_of_batches_are_refused(folder):
    for index in range(2):
        message = (folder / f"message {index}.txt").read_text()
        assert "have done [8, 6] updates" in message


def test_a_strategy_that_shares_variables_is_refused():
    with pytest.raises(ValueError, match="OneDeviceStrategy.*share"):
        tf_lamb.LocalSGD(2, tf.distribute.OneDeviceStrategy("/cpu:0"))
    with pytest.raises(ValueError, match="steps"):
        tf_lamb.LocalSGD(0, tf.distribute.get_strategy())
