"""Folders of Hugging Face's read, and ours opened by `transformers`, on torch.

Both ways for both families and every head: the same logits to 1e-5, the same
weights to the bit, the same token ids.
"""

import json
import os

import numpy as np
import pytest

pytest.importorskip("transformers", reason="make test-torch has it")
os.environ.setdefault("KERAS_BACKEND", "torch")

import keras  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from official_models.common import weights  # noqa: E402
from official_models.nlp.albert.config import AlbertConfig  # noqa: E402
from official_models.nlp.albert.huggingface import ALBERT  # noqa: E402
from official_models.nlp.bert import huggingface  # noqa: E402
from official_models.nlp.bert.config import BertConfig  # noqa: E402
from official_models.nlp.checkpoint import models, tokenizer  # noqa: E402
from official_models.nlp.checkpoint.export import export  # noqa: E402
from official_models.nlp.checkpoint.opening import open_source  # noqa: E402
from official_models.nlp.checkpoint.source import make  # noqa: E402
from official_models.nlp.text import wordpiece  # noqa: E402

if keras.backend.backend() != "torch":
    pytest.skip("needs KERAS_BACKEND=torch", allow_module_level=True)

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] good bad film ##s a ##a é e . 中"
WORDS = WORDS.split()
K, B, T = 3, 3, 12
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
}
NONE = tokenizer.TokenizerFiles()
FAMILIES = ["bert", "albert"]
# Head -> class in transformers, its outputs by the names of ours.
HEADS = {
    "encoder": (
        "Model",
        {
            "sequence_output": "last_hidden_state",
            "pooled_output": "pooler_output",
        },
    ),
    "pretrainer": (
        "ForPreTraining",
        {
            "masked_lm": "prediction_logits",
            "next_sentence": "seq_relationship_logits",
            "sentence_order": "sop_logits",
        },
    ),
    "classifier": ("ForSequenceClassification", {"logits": "logits"}),
    "span": (
        "ForQuestionAnswering",
        {"start_logits": "start_logits", "end_logits": "end_logits"},
    ),
}


def theirs_of(family, kind, seed=0, **changes):
    """A random model of theirs, no array of which is trivial."""
    name = {"bert": "Bert", "albert": "Albert"}[family]
    sizes = {
        **SIZES,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_labels": K if kind == "ForSequenceClassification" else 2,
        **({"embedding_size": 8} if family == "albert" else {}),
        **changes,
    }
    config = getattr(transformers, f"{name}Config")(**sizes)
    config._attn_implementation = "eager"
    model = getattr(transformers, name + kind)(config).eval()
    randomize(model.named_parameters(), seed)
    return model


def randomize(parameters, seed):
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(parameters):
            value = rng.normal("orm.weight" in name, 0.2, parameter.shape)
            parameter.copy_(torch.from_numpy(value))


def ours_of(family, head, seed=1, **changes):
    """A random model of ours, no variable of which is trivial."""
    sizes = {**SIZES, "num_layers": 4, "num_heads": 2, **changes}
    config = (
        AlbertConfig(embedding_size=8, **sizes)
        if family == "albert"
        else BertConfig(**sizes)
    )
    model = models.make(config, head, num_labels=K)
    rng = np.random.default_rng(seed)
    for path, variable in weights.by_path(model).items():
        centre = float(path.endswith("gamma"))
        variable.assign(rng.normal(centre, 0.2, variable.shape))
    return model


def inputs_of(model):
    rng = np.random.default_rng(2)
    lengths = T - 3 * np.arange(B)[:, None]
    values = {
        "input_ids": rng.integers(1, len(WORDS), (B, T)),
        "input_mask": np.arange(T) < lengths,
        "segment_ids": np.arange(T) >= lengths // 2,
        "masked_lm_positions": np.tile(np.arange(T), (B, 1)),
    }
    names = {tensor.name for tensor in model.inputs}
    return {n: x.astype("int32") for n, x in values.items() if n in names}


def same_outputs(ours, theirs, names, left_out=()):
    inputs = inputs_of(ours)
    ids, mask, segments = (
        torch.from_numpy(inputs[name]).long()
        for name in ("input_ids", "input_mask", "segment_ids")
    )
    with torch.no_grad():
        expected = theirs(ids, mask, segments)
    found = ours(inputs)
    found = found if isinstance(found, dict) else {"logits": found}
    assert found.keys() - set(left_out)
    for name in found.keys() - set(left_out):
        wanted = expected[names[name]].numpy()
        assert np.ptp(wanted) > 0.05, name
        actual = keras.ops.convert_to_numpy(found[name])
        np.testing.assert_allclose(actual, wanted, atol=1e-5, err_msg=name)


def same_states(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype
        assert torch.equal(actual[name], tensor), name


def write_vocabulary(folder):
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS)
def test_theirs_read_and_written_back(family, head, tmp_path):
    kind, names = HEADS[head]
    theirs = theirs_of(family, kind, hidden_act="gelu_new")
    theirs.save_pretrained(tmp_path / "theirs")
    source = open_source(tmp_path / "theirs")
    ours, loaded = make(source)
    assert not loaded.unused
    new = {path.split("/")[1] for path in loaded.new}
    assert new == ({"pooler"} if head == "span" else set())
    same_outputs(ours, theirs, names)
    export(ours, tmp_path / "back", "huggingface", NONE, leave_out=loaded.new)
    back, report = type(theirs).from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys"))
    same_states(back.state_dict(), theirs.state_dict())
    kept = json.loads((tmp_path / "theirs/config.json").read_text())
    written = json.loads((tmp_path / "back/config.json").read_text())
    assert written["architectures"] == kept["architectures"]
    for name, value in back.config.to_dict().items():
        expected = theirs.config.to_dict()[name]
        if name == "classifier_dropout" and expected is None:
            assert value in (None, theirs.config.hidden_dropout_prob)
            continue  # None means the other
        if name not in ("_name_or_path", "bos_token_id", "eos_token_id"):
            assert value == expected, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("gelu", ["erf", "tanh"])
@pytest.mark.parametrize("head", HEADS)
def test_ours_opened_by_the_auto_classes(family, gelu, head, tmp_path):
    kind, names = HEADS[head]
    ours = ours_of(family, head, gelu=gelu)
    write_vocabulary(tmp_path)
    folder = tmp_path / "out"
    export(ours, folder, "huggingface", tokenizer.find(tmp_path))
    theirs = getattr(transformers, f"AutoModel{kind.removeprefix('Model')}")
    same_outputs(ours, theirs.from_pretrained(folder).eval(), names)
    # The encoder of any head, by AutoModel.
    encoder = models.make(models.config_of(ours))
    ours_by_path = weights.by_path(ours)
    for path, variable in weights.by_path(encoder).items():
        variable.assign(ours_by_path[path])
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    same_outputs(encoder, theirs, HEADS["encoder"][1])
    if head == "pretrainer":
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder)
        same_outputs(
            ours,
            theirs.eval(),
            {"masked_lm": "logits"},
            left_out=("next_sentence", "sentence_order"),
        )
    again, loaded = make(open_source(folder))
    assert not loaded.new and not loaded.unused
    for path, variable in weights.by_path(again).items():
        mine = keras.ops.convert_to_numpy(ours_by_path[path])
        read = keras.ops.convert_to_numpy(variable)
        np.testing.assert_array_equal(read, mine, err_msg=path)
    assert models.config_of(again) == models.config_of(ours)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_masked_lm_without_pooler_and_sentence_pairs(family, tmp_path):
    theirs = theirs_of(family, "ForMaskedLM")
    theirs.save_pretrained(tmp_path / "theirs")
    ours, loaded = make(open_source(tmp_path / "theirs"))
    assert {path.split("/")[1] for path in loaded.new} == {
        "pooler",
        "seq_relationship",
    }
    pair = ("next_sentence", "sentence_order")
    same_outputs(ours, theirs, {"masked_lm": "logits"}, left_out=pair)
    export(ours, tmp_path / "back", "huggingface", NONE, leave_out=loaded.new)
    back = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "back")
    assert type(back) is type(theirs)
    same_states(back.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("groups", [1, 2, 3, 4])
@pytest.mark.parametrize("inner", [1, 2])
def test_every_sharing_that_their_albert_has(groups, inner, tmp_path):
    """From one group (all is shared) to one a layer (nothing is)."""
    theirs = theirs_of(
        "albert",
        "ForPreTraining",
        num_hidden_groups=groups,
        inner_group_num=inner,
    )
    theirs.save_pretrained(tmp_path / "theirs")
    ours, loaded = make(open_source(tmp_path / "theirs"))
    assert not loaded.new and not loaded.unused
    same_outputs(ours, theirs, HEADS["pretrainer"][1])
    # Without a folder: their names and arrays, those of tied ones too.
    state = huggingface.to_hf_state_dict(ours, ALBERT)
    expected = {n: x.numpy() for n, x in theirs.state_dict().items()}
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array, err_msg=name)
    other = models.make(models.config_of(ours), "pretrainer", seed=9)
    huggingface.from_hf_state_dict(expected, other, ALBERT)
    same_outputs(other, theirs, HEADS["pretrainer"][1])
    export(ours, tmp_path / "back", "huggingface", NONE)
    back = transformers.AutoModelForPreTraining.from_pretrained(
        tmp_path / "back"
    )
    same_states(back.state_dict(), theirs.state_dict())


def test_sharded_and_narrow_weights(tmp_path):
    """Several files with an index; bfloat16 is widened, exactly."""
    theirs = theirs_of("bert", "Model").to(torch.bfloat16)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ours, loaded = make(open_source(tmp_path))
    assert not loaded.new and not loaded.unused
    same_outputs(ours, theirs.float(), HEADS["encoder"][1])
    export(ours, tmp_path / "back", "huggingface", NONE)
    back = transformers.AutoModel.from_pretrained(tmp_path / "back")
    same_states(back.state_dict(), theirs.state_dict())


TEXTS = [
    "good films.",
    "Bad FILM É 中 zzz",
    "a" * 150,  # transformers' own BertTokenizer makes [UNK] of it
    "a" * 250,
    "  good\n\tbad\x00 . ",
]


@pytest.mark.parametrize("lowercase", [True, False])
def test_token_ids(lowercase, tmp_path):
    write_vocabulary(tmp_path)
    found = tokenizer.find(tmp_path, lowercase=lowercase)
    export(ours_of("bert", "encoder"), tmp_path / "out", "huggingface", found)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = wordpiece.load_tokenizer(tmp_path / "vocab.txt", lowercase)
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert theirs(text)["input_ids"] == [2, *ids, 3]
    pair = theirs("good film", "bad")
    assert pair["input_ids"] == [2, 5, 7, 3, 6, 3]
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    assert theirs("bad [MASK]")["input_ids"] == [2, 6, 4, 3]
    padded = theirs(["good", "good bad"], padding=True)
    assert padded["input_ids"][0] == [2, 5, 3, 0]
    assert theirs.model_max_length == 24
    # What was read from there is written there again, byte for byte.
    back = tmp_path / "back"
    export(
        ours_of("bert", "encoder"),
        back,
        "huggingface",
        tokenizer.find(tmp_path / "out"),
    )
    names = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")
    for name in names:
        assert (back / name).read_bytes() == (
            tmp_path / "out" / name
        ).read_bytes()
    assert tokenizer.find(back).lowercase is lowercase
