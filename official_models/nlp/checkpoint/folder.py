"""Hugging Face's folders: `config.json`, `model.safetensors`, the tokenizer.

Weights are read and written by the `safetensors` library only: a
`pytorch_model.bin` is a pickle, which can run any code, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from official_models.common import files
from official_models.common.errors import InputError, first_line, require
from official_models.nlp.albert import config as albert_config
from official_models.nlp.bert import config as bert_config
from official_models.nlp.bert.config import HUGGING_FACE_GELU, BertConfig
from official_models.nlp.bert.huggingface import Naming, is_kernel
from official_models.nlp.checkpoint import models

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
EXPECTED = (
    "a folder of Hugging Face's BERT or ALBERT, with config.json and "
    "model.safetensors"
)
# What these variants compute is something else.
STANDARD = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
# Class in transformers, by head and by family (BERT, ALBERT).
ARCHITECTURES = {
    "encoder": ("BertModel", "AlbertModel"),
    "pretrainer": ("BertForPreTraining", "AlbertForPreTraining"),
    "masked_lm": ("BertForMaskedLM", "AlbertForMaskedLM"),
    "classifier": (
        "BertForSequenceClassification",
        "AlbertForSequenceClassification",
    ),
    "span": ("BertForQuestionAnswering", "AlbertForQuestionAnswering"),
}


def is_folder(path: Path) -> bool:
    """Whether it looks like one of these folders, complete or not."""
    return any((path / n).is_file() for n in (CONFIG, WEIGHTS, INDEX, PICKLE))


def read_config(folder: Path) -> tuple[BertConfig, float]:
    """The configuration, and the rate before a classifier.

    Raises:
        InputError: There is none, or it is of another kind of model.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: has no {CONFIG}; expected {EXPECTED}")
    found = bert_config.read_json(path, EXPECTED)
    kind = found.get("model_type", "bert")
    if kind not in ("bert", "albert"):
        raise InputError(
            f"{path}: model_type: got {kind!r}, expected 'bert' or 'albert'"
        )
    for name, expected in STANDARD.items():
        if found.get(name, expected) != expected:
            raise InputError(
                f"{path}: {name}: got {found[name]!r}, expected {expected!r}: "
                "the models here have no other"
            )
    arguments = {"gelu": HUGGING_FACE_GELU}
    if kind == "albert" or "embedding_size" in found:
        if "embedding_size" not in found:
            raise InputError(f"{path}: lacks embedding_size of an ALBERT")
        config = albert_config.make_config(path, found, **arguments)
        return config, _rate(found, "classifier_dropout_prob", 0.1)
    config = bert_config.make_config(
        path, found, **arguments, expected=EXPECTED
    )
    return config, _rate(found, "classifier_dropout", config.hidden_dropout)


def read_labels(folder: Path) -> tuple[str, ...]:
    """The names of a classifier's labels, in the order of its logits.

    Returns:
        None of them where the configuration has no names, or those that
        transformers gives by itself, LABEL_0 and so on.
    """
    found = bert_config.read_json(folder / CONFIG, EXPECTED).get("id2label")
    if not isinstance(found, dict):
        return ()
    names = [str(found.get(str(i))) for i in range(len(found))]
    if set(found) != {str(i) for i in range(len(found))}:
        return ()
    return () if names == _default_labels(len(names)) else tuple(names)


def _default_labels(number: int) -> list[str]:
    return [f"LABEL_{i}" for i in range(number)]


def _rate(found: Mapping, name: str, default: float) -> float:
    rate = found.get(name)
    return default if rate is None else rate


class Arrays:
    """The arrays of a folder, by the paths of our variables.

    Args:
        folder: Holds one `model.safetensors`, or several files and an index.
        naming: Of the model's family.

    Attributes:
        files: Of the arrays.
        shapes: {name: shape}, names as in a model with a head.
        ignored: Second names of tied arrays, and constants.

    Raises:
        InputError: A file is missing or damaged, or two names of one tied
            array disagree.
    """

    def __init__(self, folder: Path, naming: Naming):
        self._naming = naming
        self._files: dict[str, tuple] = {}  # name -> open file, name there
        self.shapes: dict[str, tuple[int, ...]] = {}
        wanted = _weight_files(folder)
        require("safetensors", str(folder))
        self.files = sorted(str(path) for path in wanted)
        for path, names in wanted.items():
            self._open(path, names)
        self.ignored = {n for n in self.shapes if naming.is_constant(n)}
        for alias, name in naming.tied.items():
            if alias not in self.shapes:
                continue
            if name not in self.shapes:  # kept under its second name alone
                self.shapes[name] = self.shapes[alias]
                self._files[name] = self._files[alias]
            elif not np.array_equal(self._tensor(alias), self._tensor(name)):
                raise InputError(
                    f"{folder}: {alias!r} differs from {name!r}; expected one "
                    "tied array, as all published models have"
                )
            self.ignored.add(alias)

    def _open(self, path: Path, wanted: set[str] | None) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            opened = safe_open(path, framework="np")
            names = set(opened.keys())
            for name in names:
                modern = self._naming.modern(name)
                shape = opened.get_slice(name).get_shape()
                self.shapes[modern] = tuple(shape)
                self._files[modern] = opened, name
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path}: damaged or cut short ({first_line(error)}); "
                "download or copy it anew"
            ) from error
        if lacking := sorted((wanted or set()) - names):
            raise InputError(
                f"{path}: lacks {lacking[0]!r}, which {INDEX} says it has; "
                "download or copy the folder anew"
            )

    def _tensor(self, name: str) -> np.ndarray:
        opened, original = self._files[name]
        return opened.get_tensor(original)

    def name_of(self, path: str) -> str:
        """Their name of the variable of a path."""
        return self._naming.name_of(path)

    def shape_of(self, path: str) -> tuple[int, ...]:
        """The shape it has as a variable of ours."""
        shape = self.shapes[self.name_of(path)]
        return shape[::-1] if is_kernel(path) else shape

    def read(self, path: str) -> np.ndarray:
        """Its values; what is narrower than float32 is widened, exactly."""
        array = self._tensor(self.name_of(path))
        if array.dtype.itemsize < 4:
            array = array.astype("float32")
        return array.T if is_kernel(path) else array


def _weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """{file: names that it must have}."""
    if (folder / WEIGHTS).is_file():
        return {folder / WEIGHTS: None}
    if (folder / INDEX).is_file():
        found = files.read_json(folder / INDEX, f"expected {EXPECTED}")
        places = found.get("weight_map") if isinstance(found, dict) else None
        if not isinstance(places, dict) or not places:
            raise InputError(f"{folder / INDEX}: has no weight_map")
        shards: dict[Path, set[str]] = {}
        for name, file in places.items():
            # A name, not a path out of the folder.
            shards.setdefault(folder / Path(str(file)).name, set()).add(name)
        return dict(shards)
    if (folder / PICKLE).is_file():
        raise InputError(
            f"{folder / PICKLE}: is a pickle, which can run any code, and is "
            f"not read; save the model as {WEIGHTS}: in transformers, "
            "model.save_pretrained(folder)"
        )
    raise InputError(f"{folder}: has no {WEIGHTS}; expected {EXPECTED}")


def write(
    folder: Path,
    config: BertConfig,
    arrays: Mapping[str, np.ndarray],
    *,
    num_labels: int | None = None,
    dropout: float = 0.1,
    labels: Sequence[str] = (),
) -> None:
    """Writes `config.json` and `model.safetensors`.

    Args:
        folder: Where to.
        config: Of the model.
        arrays: {path of a variable: array}.
        num_labels: Of a classifier.
        dropout: Rate before it.
        labels: Names of its labels; none for those of transformers.
    """
    require("safetensors", "--format huggingface")
    from safetensors.numpy import save_file

    naming = models.naming_of(config)
    state = {
        naming.name_of(path): np.ascontiguousarray(
            array.T if is_kernel(path) else array
        )
        for path, array in arrays.items()
    }
    head = models.head_of(arrays.__contains__)
    if head == "encoder":
        state = {n.removeprefix(naming.prefix): x for n, x in state.items()}
    elif head == "pretrainer" and models.PAIR not in arrays:
        head = "masked_lm"
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    names = list(labels) or _default_labels(num_labels or 0)
    values = _config_values(config, head, names, dropout)
    files.write_json(folder / CONFIG, values)
    # The library lets only the user read what it writes.
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)


def _config_values(
    config: BertConfig, head: str, labels: Sequence[str], dropout: float
) -> dict:
    """What `config.json` has."""
    is_albert = models.is_albert(config)
    values = {
        "architectures": [ARCHITECTURES[head][is_albert]],
        "model_type": "albert" if is_albert else "bert",
        **bert_config.file_values(config),
        "hidden_act": {"erf": "gelu", "tanh": "gelu_new"}[config.gelu],
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    if is_albert:
        del values["shared_part"]  # a name of ours; "none"
        # The defaults are ids of the published vocabularies.
        values |= {"bos_token_id": None, "eos_token_id": None}
    if head == "classifier":
        name = "classifier_dropout_prob" if is_albert else "classifier_dropout"
        values |= {
            name: dropout,
            "id2label": {str(i): label for i, label in enumerate(labels)},
            "label2id": {label: i for i, label in enumerate(labels)},
        }
    return values
