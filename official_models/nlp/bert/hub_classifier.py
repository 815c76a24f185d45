"""A classifier of sentences on a TF Hub encoder, of the flags, in tf_keras."""

from pathlib import Path

import tensorflow_hub as hub
import tf_keras as keras
from absl import flags

from official_models.common.errors import InputError
from official_models.nlp.bert import hub as encoders
from tf_lamb import keras2

FLAGS = flags.FLAGS
EXCLUSIONS = ["LayerNorm", "bias"]


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string(
        "hub_module", None, "A module that hub.py wrote. Default: MiniLM."
    )
    flags.DEFINE_bool("freeze_encoder", False, "Train the head alone.")
    flags.DEFINE_enum("optimizer", "lamb", ["lamb", "adamw"], "The optimizer.")
    flags.DEFINE_float("learning_rate", 1e-3, "Peak learning rate.", 0.0)
    flags.DEFINE_float("weight_decay", 0.01, "Weight decay.", 0.0)


def module_folder(folder: Path) -> Path:
    """The folder of `--hub_module`, or of MiniLM, exported here if need be.

    Args:
        folder: of the run; MiniLM comes into it.

    Raises:
        InputError: there is no module, or MiniLM cannot be fetched.
    """
    module = Path(FLAGS.hub_module or folder / "module")
    if not FLAGS.hub_module and not (module / "saved_model.pb").exists():
        encoder = encoders.fetch_encoder()
        model = encoders.read_encoder(encoder)
        encoders.export(model, module, encoder / "vocab.txt")
    for name in ("saved_model.pb", "assets/vocab.txt"):
        if not (module / name).exists():
            raise InputError(
                f"--hub_module {module}: no {name} there; make one by "
                "python -m official_models.nlp.bert.hub"
            )
    return module


def make_model(module: Path, total_steps: int) -> keras.Model:
    """Encoder, mean of its token vectors, one logit; compiled.

    Args:
        module: as `module_folder` gives it.
        total_steps: updates of the run; a tenth of them warm up.
    """
    keras.utils.set_random_seed(FLAGS.seed)
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in encoders.INPUTS
    }
    # The dropouts are the encoder's, whose random state is checkpointed.
    encoder = hub.KerasLayer(
        str(module), trainable=not FLAGS.freeze_encoder, name="encoder"
    )
    logit = keras.layers.Dense(1, name="classifier")(encoder(inputs)["default"])
    model = keras.Model(inputs, logit)
    model.compile(
        _optimizer(total_steps),
        keras.losses.BinaryCrossentropy(from_logits=True),
        [keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)],
    )
    return model


def _optimizer(total_steps: int) -> keras.optimizers.Optimizer:
    rate = keras2.WarmupPolynomial(
        FLAGS.learning_rate, total_steps, total_steps // 10
    )
    excluded = ["bias"] if FLAGS.freeze_encoder else EXCLUSIONS
    if FLAGS.optimizer == "lamb":
        return keras2.LAMB(
            rate,
            weight_decay=FLAGS.weight_decay,
            exclude_from_weight_decay=excluded,
            global_clipnorm=1.0,
        )
    optimizer = keras.optimizers.AdamW(
        rate, FLAGS.weight_decay, global_clipnorm=1.0
    )
    optimizer.exclude_from_weight_decay(var_names=excluded)
    return optimizer
