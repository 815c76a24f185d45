"""Two workers on 127.0.0.1: loops, comparison of workers, faults."""

import json

import numpy as np
import pytest

from tests.multi_worker import faults, worker
from tests.processes import Cluster

JOBS = {"worker": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a task of `worker.py` once; gives its folder and exit codes."""
    results = {}

    def run(task, legacy=False):
        key = task, legacy
        if key not in results:
            folder = tmp_path_factory.mktemp(task)
            log = folder / "log.txt"
            with Cluster(
                JOBS,
                "tests.multi_worker.worker",
                [task, folder],
                log,
                {"TF_USE_LEGACY_KERAS": str(int(legacy))},
            ) as cluster:
                codes = cluster.wait(timeout=150)
            results[key] = folder, codes
        folder, codes = results[key]
        assert codes == [0, 0], (folder / "log.txt").read_text()[-4000:]
        return folder

    return run


@pytest.mark.parametrize("legacy", [False, True], ids=["keras3", "tf_keras"])
@pytest.mark.parametrize("difference", worker.DIFFERENCES)
def test_workers_that_differ_are_refused_by_both(run, difference, legacy):
    folder = run("disagree", legacy)
    named = worker.DIFFERENCES[difference][1]
    for index in range(2):
        file = folder / f"{difference} {index}.json"
        result = json.loads(file.read_text())
        assert "workers disagree on " in result["message"]
        assert named in result["message"]
        assert "replica 0 has" in result["message"]
        assert "replica 1 has" in result["message"]
        assert "\n" not in result["message"]
        assert result["seconds"] < 30


def test_workers_that_are_the_same_go_on_with_the_names_of_the_first(run):
    folder = run("disagree")
    for index in range(2):
        names = json.loads((folder / f"same {index}.json").read_text())
        assert names[0] in ("dense/kernel", "sequential/dense/kernel")


@pytest.fixture(scope="module")
def alone():
    """The same on one device."""
    model = worker.make_model()
    history = model.fit(
        worker.dataset(),
        validation_data=worker.dataset(batch=24).take(3),
        epochs=2,
        verbose=0,
    ).history
    x, _ = worker.data()
    return {
        "history": history,
        "evaluate": model.evaluate(
            worker.dataset(batch=24).take(4), verbose=0, return_dict=True
        ),
        "predict": model.predict(x, verbose=0),
        "weights": model.get_weights(),
    }


@pytest.mark.parametrize("index", range(2))
def test_fit_evaluate_predict_equal_one_device(run, alone, index):
    folder = run("loops")
    result = json.loads((folder / f"loops {index}.json").read_text())
    assert set(result["history"]) == set(alone["history"])
    for name, values in alone["history"].items():
        np.testing.assert_allclose(
            result["history"][name], values, rtol=1e-5, err_msg=name
        )
    assert result["evaluate"] == pytest.approx(alone["evaluate"], rel=1e-5)
    got = np.array(result["predict"])
    np.testing.assert_allclose(got, alone["predict"], rtol=0, atol=1e-5)
    for a, b in zip(result["weights"], alone["weights"]):
        np.testing.assert_allclose(np.array(a), b, rtol=0, atol=1e-6)
    assert (
        "compile the model with steps_per_execution=1"
        in (result["several steps"])
    )


def test_the_chief_alone_saves(run, alone):
    import keras

    folder = run("loops")
    assert [p.name for p in folder.glob("*.keras")] == ["model.keras"]
    model = keras.models.load_model(folder / "model.keras")
    for a, b in zip(model.get_weights(), alone["weights"]):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_killed_workers_resume_to_the_same_weights(tmp_path):
    (fault,) = faults.campaign(kills=1, seed=1, folder=tmp_path)
    assert fault["survived"], fault
    assert -9 in fault["exit_codes"]


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_checkpoint_has_the_hooks_of_keras_and_no_other(name):
    from tf_lamb import multi_worker

    keras = pytest.importorskip(name)
    checkpoint = multi_worker.Checkpoint("x", every=1)
    theirs = [n for n in dir(keras.callbacks.Callback) if n.startswith("on_")]
    assert len(theirs) == 16
    for hook in theirs:
        assert callable(getattr(checkpoint, hook))
    for misspelt in ("on_train_batch_ends", "on_epochs_begin"):
        with pytest.raises(AttributeError, match=misspelt):
            getattr(checkpoint, misspelt)


def test_checkpoint_wants_a_whole_number_and_a_restore():
    from tf_lamb import multi_worker

    with pytest.raises(ValueError, match="every: expected a whole number"):
        multi_worker.Checkpoint("x", every=0)
    with pytest.raises(ValueError, match="call restore"):
        multi_worker.Checkpoint("x", every=1).on_train_batch_end(0)
