"""What agents are given: parts of documents, batches, the copy task."""

import numpy as np
import pytest

from official_models.nlp.summarization import copy_task, dca_inputs, inputs


@pytest.mark.parametrize(
    ("clss", "length", "wanted"),
    [
        ([0, 3, 6], 9, [3, 3, 3]),
        ([0, 2, 4, 6], 12, [4, 8, 0]),  # sentences belong where they begin
        ([0], 7, [7, 0, 0]),
        ([0, 8], 9, [8, 0, 1]),
    ],
)
def test_parts_of_a_document(clss, length, wanted):
    row = inputs.Encoded(
        *(np.arange(length), np.zeros(length), np.array(clss)),
        *(np.zeros(1), np.array([1, 7, 3, 8, 2])),
    )
    found = dca_inputs.parts(row, 3)
    assert [len(part) for part in found] == wanted
    np.testing.assert_array_equal(np.concatenate(found), row.input_ids)


def test_batches_for_agents():
    ids = np.arange(10, 19)
    long = inputs.Encoded(
        *(ids, 0 * ids, np.array([0, 3, 6])),
        *(np.zeros(3), np.array([1, 7, 3, 8, 2])),
    )
    short = long._replace(
        input_ids=ids[:4], clss=np.array([0]), target=np.array([1, 9, 2])
    )
    form = dca_inputs.AgentForm(3, inputs.Marks(1, 2, 3))
    x, labels, weight = form.batch([long, short])
    assert x["input_ids"][0].tolist() == [
        *([10, 11, 12, 0], [13, 14, 15, 0], [16, 17, 18, 0])
    ]
    assert x["input_mask"].sum(-1).tolist() == [[3, 3, 3], [4, 0, 0]]
    assert x["target_ids"].tolist() == [[1, 7, 3, 8], [1, 9, 0, 0]]
    assert labels["log_p"].tolist() == [[7, 3, 8, 2], [9, 2, 0, 0]]
    assert labels["states"].tolist() == [[0, 1, 0, 1], [0, 1, 0, 0]]
    assert weight["log_p"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert weight["states"].tolist() == [1, 1]
    for given, spec in zip((x, labels, weight), form.signature(), strict=True):
        assert set(given) == set(spec)
        for name, array in given.items():
            assert spec[name].dtype == array.dtype
            assert spec[name].shape.rank == array.ndim


def test_the_copy_task():
    rng = np.random.default_rng(0)
    inputs, labels = copy_task.draw(rng, 200, agents=4, pairs=3, keys=5)
    ids, v = inputs["input_ids"], copy_task.vocab_size(5)
    assert ids.shape == (200, 4, 6) and inputs["input_mask"].all()
    places = []
    for one, target, label in zip(
        ids, inputs["target_ids"], labels, strict=True
    ):
        pairs = dict(one[0].reshape(3, 2))
        assert len(pairs) == 3 and set(pairs.values()) == {v, v + 1, v + 2}
        (key,) = set(one[3]) & set(pairs)
        assert label.tolist() == [pairs[key], copy_task.END]
        assert target.tolist() == [copy_task.BEGIN, pairs[key]]
        # No other agent knows a key or a value.
        assert not set(one[1:3].ravel()) & (set(range(4, 9)) | {*pairs})
        places.append(list(pairs).index(key))
        assert one[1:].max() < v
    # No place among the pairs, and no value, is more frequent.
    for counts in (np.bincount(places), np.bincount(labels[:, 0] - v)):
        assert counts.min() > 45
    with pytest.raises(ValueError, match="keys"):
        copy_task.draw(rng, 1, pairs=4, keys=3)
