"""The monitor and the noise scale in two processes that train together."""

import csv

import numpy as np
import pytest

from tests.processes import Cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two workers wrote."""
    folder = tmp_path_factory.mktemp("monitored")
    log = folder / "log.txt"
    module = "tests.multi_worker.monitored_worker"
    with Cluster({"worker": 2}, module, [folder], log, {}) as cluster:
        codes = cluster.wait(timeout=150)
    assert codes == [0, 0], log.read_text()[-4000:]
    return folder


def test_watched_weights_are_the_same_bits(folder):
    for index in range(2):
        found = np.load(folder / f"{index}.npz")
        count = len([n for n in found.files if n.startswith("alone")])
        assert count == 4
        for i in range(count):
            a, b = found[f"alone {i}"], found[f"watched {i}"]
            np.testing.assert_array_equal(a, b)


def test_each_worker_measures_and_the_chief_writes(folder):
    values = [float(np.load(folder / f"{i}.npz")["noise"]) for i in range(2)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    names = {p.name for p in (folder / "0").iterdir()}
    assert {"noise.csv", "trust_ratio.csv", "gradient_norm.csv"} <= names
    assert list((folder / "1").iterdir()) == []
    with open(folder / "0" / "trust_ratio.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1:] and len(rows[0]) >= 2
