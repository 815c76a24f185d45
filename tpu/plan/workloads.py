"""Models to plan for, compiled with an optimizer, and what a batch of them is.

Axes: B global batch, T tokens, P predictions a sequence.
"""

import contextlib
import dataclasses
import importlib
import math
import traceback
from collections.abc import Callable, Mapping

import jax
import keras

import tf_lamb
from official_models.common.errors import InputError, first_line
from official_models.nlp.albert import config as albert_config
from official_models.nlp.albert import layouts as albert_layouts
from official_models.nlp.albert.model import albert_pretrainer
from official_models.nlp.bert import config as bert_config
from official_models.nlp.bert import layouts as bert_layouts
from official_models.nlp.bert.model import bert_pretrainer
from official_models.nlp.bert.pretraining.losses import pretraining_losses
from official_models.vision.resnet import layouts as resnet_layouts
from official_models.vision.resnet import model as resnet

MODELS = (
    *(f"bert-{size}" for size in bert_config.SIZES),
    *(f"albert-{size}" for size in albert_config.SIZES),
    *resnet.NETWORKS,
)
OPTIMIZERS = ("lamb", "lars", "adamw", "sgd")
REMAT = ("none", "blocks")


@dataclasses.dataclass(frozen=True)
class Options:
    """What of a known model can be chosen.

    Attributes:
        sequence_length: T of BERT and ALBERT, in tokens.
        image_size: side of a ResNet's images, in pixels.
        optimizer: of `OPTIMIZERS`.
        dtype: Keras dtype policy.
        dropout: of BERT and ALBERT, on hidden states and attention.
        rematerialize: "none", or "blocks": each Transformer layer or residual
            block is computed again in the backward pass.
    """

    sequence_length: int = 128
    image_size: int = 224
    optimizer: str = "lamb"
    dtype: str = "mixed_bfloat16"
    dropout: float = 0.1
    rematerialize: str = "none"


@dataclasses.dataclass(frozen=True)
class Workload:
    """A compiled Keras model and the shapes of its batches.

    Attributes:
        model: compiled, its optimizer built.
        batch: from B to (x, y, sample_weight) or a part of it, of
            `jax.ShapeDtypeStruct`s whose first axis is B.
        layouts: as `model_parallel.layout_map` takes them; None for none.
    """

    model: keras.Model
    batch: Callable[[int], tuple]
    layouts: Mapping[str, tuple] | None = None


def make(name: str, options: Options) -> Workload:
    """A workload by name.

    Args:
        name: one of `MODELS`, or "module:function" of your own: a function of
            the global batch size that returns a compiled Keras model and what
            `fit` takes of a batch, (x, y) or (x, y, sample_weight), as
            anything with `shape` and `dtype`. Its module may have `LAYOUTS`.
        options: of the known models; your own function makes its own choices.

    Raises:
        InputError: no such model, or an option that it cannot take.
    """
    if ":" in name:
        return _own(name)
    if name not in MODELS:
        raise InputError(
            f"--model {name!r}: expected one of {', '.join(MODELS)}, or "
            "module:function"
        )
    build = _resnet if name in resnet.NETWORKS else _bert
    scope = contextlib.nullcontext()
    if options.rematerialize == "blocks":
        scope = keras.RematScope("list_of_layers", layer_names=_BLOCKS)
    try:
        with scope:
            return build(name, options)
    except ValueError as error:
        raise InputError(f"--model {name}: {error}") from error


# Of BERT, ALBERT (one, applied again and again) and ResNet.
_BLOCKS = [
    *(f"layer_{i}" for i in range(48)),
    "inner_group_0",
    *(f"block_{i}" for i in range(1, 49)),
]


def _optimizer(name, exclusions):
    """The optimizer of a job; rates do not change what is compiled."""
    if name == "lamb":
        return tf_lamb.LAMB(
            1e-3,
            weight_decay=0.01,
            exclude_from_weight_decay=exclusions,
            global_clipnorm=1.0,
        )
    if name == "lars":
        return tf_lamb.LARS(
            1.0, weight_decay=1e-4, exclude_from_weight_decay=exclusions
        )
    if name == "adamw":
        return keras.optimizers.AdamW(1e-3, weight_decay=0.01)
    return keras.optimizers.SGD(1e-3, momentum=0.9)


def _array(*shape, dtype="int32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def _bert(name, options):
    length = options.sequence_length
    kind, _, size = name.partition("-")
    config_class, build, pair, layouts = {
        "bert": (
            bert_config.BertConfig,
            bert_pretrainer,
            "next_sentence",
            bert_layouts.LAYOUTS,
        ),
        "albert": (
            albert_config.AlbertConfig,
            albert_pretrainer,
            "sentence_order",
            albert_layouts.LAYOUTS,
        ),
    }[kind]
    config = config_class.of_size(
        size,
        max_position_embeddings=max(512, length),
        hidden_dropout=options.dropout,
        attention_dropout=options.dropout,
    )
    model = build(config, dtype=options.dtype)
    model.compile(
        _optimizer(options.optimizer, ["LayerNorm", "bias"]),
        loss=pretraining_losses(pair),
    )
    model.optimizer.build(model.trainable_variables)
    predictions = math.ceil(0.15 * length)

    def batch(size):
        tokens = ("input_ids", "input_mask", "segment_ids")
        x = {key: _array(size, length) for key in tokens}
        x["masked_lm_positions"] = _array(size, predictions)
        y = {
            "masked_lm": _array(size, predictions),
            pair: _array(size),
        }
        weight = {
            "masked_lm": _array(size, predictions, dtype="float32"),
            pair: _array(size, dtype="float32"),
        }
        return x, y, weight

    return Workload(model, batch, layouts)


def _resnet(name, options):
    side = options.image_size
    model = resnet.build(
        name, image_size=side, num_classes=1000, dtype=options.dtype
    )
    exclusions = ["batch_norm", "bias"]
    if name == "davidnet":
        exclusions = ["batch_norm"]
    model.compile(
        _optimizer(options.optimizer, exclusions),
        loss=resnet.SmoothedCrossEntropy(0.1),
    )
    model.optimizer.build(model.trainable_variables)

    def batch(size):
        images = _array(size, side, side, 3, dtype="float32")
        return images, _array(size)

    return Workload(model, batch, resnet_layouts.LAYOUTS)


def _own(name):
    module, _, function = name.partition(":")
    try:
        module = importlib.import_module(module)
        build = getattr(module, function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"--model {name}: {error}; expected module:function, importable "
            "from here"
        ) from error
    model, _ = _call(name, build, 8)
    if getattr(model, "optimizer", None) is None:
        raise InputError(
            f"--model {name}: its model has no optimizer; call "
            "model.compile(optimizer=..., loss=...) in the function"
        )
    layouts = getattr(module, "LAYOUTS", None)
    return Workload(model, lambda size: _call(name, build, size)[1], layouts)


def place(error: BaseException) -> str:
    """What an exception says, and the file and line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = f"{type(error).__name__}: {first_line(error)}"
    return f"{said} ({last.filename}, line {last.lineno})"


def _call(name, build, size):
    try:
        model, batch = build(size)
        batch = jax.tree.map(lambda x: _array(*x.shape, dtype=x.dtype), batch)
    except Exception as error:  # of somebody else's function
        raise InputError(
            f"--model {name}: {place(error)}; expected a function of the "
            "global batch size that returns (compiled model, (x, y)); --debug "
            "shows the whole traceback"
        ) from error
    for leaf in jax.tree.leaves(batch):
        if not leaf.shape or leaf.shape[0] != size:
            raise InputError(
                f"--model {name}: asked for a batch of {size}, got an array of "
                f"shape {leaf.shape}; expected {size} first"
            )
    return model, tuple(batch)
