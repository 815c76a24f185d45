"""Token ids of a SentencePiece vocabulary, held against transformers'."""

import os

import pytest

pytest.importorskip("transformers", reason="make test-torch has it")
os.environ.setdefault("KERAS_BACKEND", "torch")

import transformers  # noqa: E402

from official_models.nlp.albert.config import AlbertConfig  # noqa: E402
from official_models.nlp.checkpoint import models, tokenizer  # noqa: E402
from official_models.nlp.checkpoint.export import export  # noqa: E402
from official_models.nlp.text import sentence_piece  # noqa: E402
from tests.official_models.nlp.text import pieces  # noqa: E402

TEXTS = [
    "42, 4,2 Zed ko",
    "ﬁ ½ ＡＢＣ ä\u0301 x\u200by \u4e2d\u6587 \U0001f600",
    " two  spaces\tand a tab. ",
]
# Where a symbol that the vocabulary keeps whole stands before a character or
# after a space, transformers 5 cuts the text there, and begins a word after
# it; SentencePiece and the published code do not.
SYMBOLS = ["(Zed-ko) bakolumi-ba", "a -- b", "``Quoted'' ko \u00a3"]


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def model(request, tmp_path_factory):
    """(path of a trained model, whether it lower-cases)."""
    path = tmp_path_factory.mktemp("trained") / "any.model"
    texts = pieces.documents()
    sentence_piece.train_tokenizer(texts, 120, path, request.param)
    return path, request.param


def _ours(model, texts):
    loaded = sentence_piece.load_tokenizer(*model)
    found = loaded.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in found]


def test_ids_are_those_of_their_tokenizer_of_the_model(model, tmp_path):
    path, lowercase = model
    (tmp_path / "spiece.model").write_bytes(path.read_bytes())
    theirs = transformers.AlbertTokenizer.from_pretrained(
        tmp_path, do_lower_case=lowercase
    )
    texts = [s.split(" 42")[0] for text in pieces.documents() for s in text]
    texts += TEXTS
    found = theirs(texts, add_special_tokens=False)["input_ids"]
    assert found == _ours(model, texts)
    # No test of ours: it fails when transformers cuts as SentencePiece does.
    found = theirs(SYMBOLS, add_special_tokens=False)["input_ids"]
    assert found != _ours(model, SYMBOLS)


def test_an_exported_folder_has_our_ids_of_every_text(model, tmp_path):
    path, lowercase = model
    config = AlbertConfig(120, 12, 1, 3, 24, embedding_size=8)
    albert = models.make(config, "pretrainer")
    files = tokenizer.TokenizerFiles({"spiece.model": path}, lowercase)
    names = export(albert, tmp_path / "out", "huggingface", files)
    assert {"spiece.model", "tokenizer.json"} <= set(names)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [*TEXTS, *SYMBOLS, *sum(pieces.documents(), [])]
    found = theirs(texts, add_special_tokens=False)["input_ids"]
    assert found == _ours(model, texts)
    pair = theirs("ba", "ko [MASK]")
    assert pair["input_ids"][0] == 2 and pair["input_ids"][-2:] == [4, 3]
    assert pair["token_type_ids"][-1] == 1
    assert theirs.pad_token_id == 0 and theirs.unk_token_id == 1
    assert theirs.mask_token_id == 4
