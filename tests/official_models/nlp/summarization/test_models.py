"""BertSum's models, small."""

import itertools
import math

import numpy as np
import pytest

from official_models.common import weights
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.summarization.layers import sinusoid
from official_models.nlp.summarization.model import bertsum_abs, bertsum_ext
from tests.official_models.nlp.summarization.small_models import (
    ENCODER,
    H,
    V,
    documents,
    small,
)


@pytest.fixture(scope="module")
def ext():
    return small(bertsum_ext)


@pytest.fixture(scope="module")
def writer():
    return small(bertsum_abs)


def padded(batch, tokens, sentences):
    """The batch with more padding."""
    sides = {"clss": sentences, "sentence_mask": sentences}
    return {
        name: np.pad(x, ((0, 0), (0, sides.get(name, tokens))))
        for name, x in batch.items()
    }


def test_scores_do_not_move_with_padding(ext):
    batch = documents([9], [(0, 3, 6)])
    alone = np.asarray(ext(batch))
    more = np.asarray(ext(padded(batch, 5, 4)))
    np.testing.assert_allclose(more[:, :3], alone, atol=1e-5)
    assert np.ptp(alone) > 1e-3


def test_scores_know_a_sentences_place(ext):
    batch = documents([9], [(0, 3)])
    swapped = {**batch, "clss": batch["clss"][:, ::-1]}
    found, other = np.asarray(ext(batch)), np.asarray(ext(swapped))
    assert np.abs(found[:, ::-1] - other).max() > 1e-3


def test_layer_0_has_no_norm_before_its_attention(ext):
    paths = weights.by_path(ext)
    assert "ext/layer_1/LayerNorm/gamma" in paths
    assert "ext/layer_0/LayerNorm/gamma" not in paths
    assert "ext/LayerNorm/gamma" in paths


def test_the_head_on_an_albert():
    config = AlbertConfig(**ENCODER, embedding_size=8)
    model = small(bertsum_ext, config)
    assert model(documents([9])).shape == (1, 2)


def test_sinusoid_by_its_formula():
    table = sinusoid(7, 6)
    for p, i in itertools.product(range(7), range(3)):
        angle = p / 10000 ** (2 * i / 6)
        assert table[p, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
        assert table[p, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_decoder_sees_no_later_token_and_no_padding(writer):
    batch = documents([9])
    own = {n: batch[n] for n in ("input_ids", "input_mask", "segment_ids")}
    target = np.array([[1, 5, 6, 7]], "int32")
    found = np.asarray(writer({**own, "target_ids": target}))
    other = np.asarray(
        writer({**own, "target_ids": np.array([[1, 5, 9, 9]], "int32")})
    )
    np.testing.assert_allclose(found[:, :2], other[:, :2], atol=1e-5)
    assert np.abs(found[:, 2:] - other[:, 2:]).max() > 1e-3
    more = {n: np.pad(x, ((0, 0), (0, 3))) for n, x in own.items()}
    long = np.asarray(writer({**more, "target_ids": target}))
    np.testing.assert_allclose(long, found, atol=1e-5)


def test_the_generator_is_tied_to_the_embedding(writer):
    matrices = [v for v in writer.weights if tuple(v.shape) == (V, H)]
    assert [v.path for v in matrices] == [
        "bert/embeddings/word_embeddings",
        "decoder/word_embeddings",
    ]


def test_a_saved_model_gives_the_same(writer, ext, tmp_path):
    batch = documents([9, 6])
    for model, own in (
        (ext, batch),
        (
            writer,
            {
                **{n: batch[n] for n in batch if n[:3] in ("inp", "seg")},
                "target_ids": np.array([[1, 5]] * 2, "int32"),
            },
        ),
    ):
        model.save(tmp_path / "model.keras")
        again = weights.read_keras(tmp_path / "model.keras", "here")
        np.testing.assert_array_equal(model(own), again(own))
