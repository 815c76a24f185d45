"""Words that LAMB moves on a TPU, by its compiler (`make test-plan`).

Clocks are not asked. A direction that is stored, a weight that is read twice
or a buffer that is not reused shows as a word or as temporary memory.
"""

import importlib.util

import pytest

if importlib.util.find_spec("libtpu") is None:
    pytest.skip("libtpu is not installed", allow_module_level=True)

from benchmarks import shapes, tpu_words  # noqa: E402

# Large enough that scalars, which count as a tile each, do not matter.
VARIABLES = tpu_words.structs(
    [("table", (2048, 1024)), ("kernel", (1024, 1024)), ("bias", (1024,))]
)
LARGEST_MB = 4 * 2048 * 1024 / 1e6
# By name in `tpu_words.ROWS`: words at most.
AT_MOST = {
    "AdamW, by hand": 7.05,
    "tf_lamb.LAMB, no skip": 10.05,
    "tf_lamb.LAMB": 11.05,
    "tf_lamb.LAMB, global_clipnorm=1": 11.05,
    "tf_lamb.LAMB, bfloat16, no skip": 7.1,
    "tf_lamb.LAMB, bfloat16": 8.1,
    "tf_lamb.LARS, no skip": 7.05,
    "tf_lamb.LARS": 7.05,
    "tf_lamb.LARS, model_garden": 8.05,
}


def _count(name, topology):
    where = tpu_words.device(topology)
    return tpu_words.count(tpu_words.ROWS[name], VARIABLES, where)


@pytest.mark.parametrize("name", AT_MOST)
def test_words_on_v3(name):
    counted = _count(name, "v3:2x2")
    assert counted["words"] <= AT_MOST[name]
    # Not below the floor either: then the count would be wrong.
    assert counted["words"] >= counted["floor"]
    assert counted["hbm_words"] == pytest.approx(counted["floor"], abs=0.01)
    assert counted["temp_mb"] < LARGEST_MB / 2


@pytest.mark.parametrize("name", ["tf_lamb.LAMB, no skip", "tf_lamb.LAMB"])
def test_hbm_words_on_v5e(name):
    # Arrays may stay on the chip between two loops: fewer, never more.
    counted = _count(name, "v5e:2x2")
    assert counted["hbm_words"] <= counted["floor"] + 0.01


def test_a_stored_direction_is_counted():
    # optax stores it: two words more than need be.
    counted = _count("optax.lamb", "v3:2x2")
    assert counted["words"] == pytest.approx(12, abs=0.1)
    assert counted["hbm_words"] == pytest.approx(12, abs=0.01)


def test_an_unknown_topology_is_one_line(capsys):
    assert tpu_words.main(["--topology", "v9:1x1"]) == 2
    error = capsys.readouterr().err.strip()
    assert "v9:1x1" in error and "v5e:2x2" in error and "\n" not in error


def test_shapes():
    for model, variables, parameters in [
        (shapes.bert(), 206, 110_106_428),
        (shapes.resnet50(), 161, 25_557_032),
        (shapes.bert(**tpu_words.MODEL), 46, 59_109_180),
    ]:
        assert len(model) == variables
        assert shapes.count(model) == parameters
