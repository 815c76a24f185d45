r"""Trains a summarizer by LAMB or others, and measures it by ROUGE.

    python -m official_models.nlp.summarization.train --model bertsum_ext \
        --format scitldr --data_dir SciTLDR-A --sentences 1 \
        --init_checkpoint uncased_L-12_H-768_A-12 --output_dir runs/ext
    python -m official_models.nlp.summarization.train --model bertsum_extabs \
        --format scitldr --data_dir SciTLDR-A --init_checkpoint runs/ext \
        --output_dir runs/extabs --min_length 5 --max_length 40
    python -m official_models.nlp.summarization.train --model dca \
        --format scitldr --data_dir SciTLDR-A --vocab_file vocab.txt \
        --output_dir runs/dca --min_length 5 --max_length 40
    python -m official_models.nlp.summarization.train --model dca --rl \
        --format scitldr --data_dir SciTLDR-A --init_checkpoint runs/dca \
        --optimizer adamw --learning_rate 1e-4 --max_target 40 \
        --output_dir runs/dca-rl --min_length 5 --max_length 40

An interrupted run is resumed by the same command; so are the oracle labels,
which are kept in --cache_dir. At the end: model.keras and what
`official_models.nlp.summarization.summarize` needs, summaries.jsonl of the
test documents, report.json with ROUGE of the model, of the first sentences and
of the oracle, curves.png. README.md beside this file has more.
"""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import flags, logging

from official_models.common import (
    backend,
    errors,
    files,
    optimizers,
    run_folder,
    script,
)
from official_models.common import flags as run_flags
from official_models.common import report as common_report
from official_models.common.errors import InputError
from official_models.nlp.checkpoint import initial
from official_models.nlp.summarization import (
    dca_inputs,
    dca_network,
    dca_rl,
    evaluation,
    inputs,
    network,
    optimization,
    prepare,
    readers,
    record,
    report,
)

FLAGS = flags.FLAGS
SUMMARIES = "summaries.jsonl"


def define_flags() -> None:
    """Defines this script's flags."""
    run_flags.define_flags(
        output_dir="runs/summaries",
        log_every=20,
        save_every=None,
        eval_every=None,
        jit_compile=False,
    )
    optimizers.define_flags(
        learning_rate=0.01,
        warmup_ratio=0.1,
        weight_decay=0.01,
        exclusions=("biases_and_norms",),
        global_clipnorm=1.0,
    )
    network.define_flags()
    dca_network.define_flags()
    optimization.define_flags()
    record.define_flags()
    for module in (
        *(run_flags, optimizers, network, dca_network, optimization),
        record,
    ):
        flags.adopt_module_key_flags(module)  # for --help
    _define_data_flags()
    integer = flags.DEFINE_integer
    integer("steps", 400, "Updates.", 1)
    integer("global_batch_size", 16, "Documents an update.", 1)
    integer("eval_batch_size", 16, "Documents at once where none trains.", 1)
    integer(
        "validation_limit",
        0,
        "Validation documents of the loss, the first ones; 0: all.",
        0,
    )
    integer(
        "test_limit",
        0,
        "Test documents that are summarized, the first ones; 0: all.",
        0,
    )
    flags.DEFINE_boolean(
        "compare_speed",
        False,
        "Whether to measure the beam search without cached keys and values, "
        "too, on --eval_batch_size documents.",
    )
    run_flags.without_effect(
        *("eval_batch_size", "test_limit", "validation_limit"),
        "compare_speed",
    )


def _define_data_flags() -> None:
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    flags.DEFINE_enum(
        "format", "jsonl", list(readers.FORMATS), "How --data_dir is laid out."
    )
    string("data_dir", None, "Folder of the data.")
    string(
        "cache_dir",
        None,
        "Folder of the sentences and oracle labels that were computed. "
        "Default: `prepared` in --output_dir.",
    )
    integer("max_bad", 0, "Damaged or empty documents that are left out.", 0)
    integer("oracle_sentences", 3, "Sentences of the oracle, at most.", 1)
    integer("jobs", None, "Processes that label. Default: one a core.", 1)
    # The encoded data are in the run's facts.
    run_flags.without_effect("data_dir", "cache_dir", "max_bad", "jobs")


def load_documents() -> dict[str, list[prepare.Document]]:
    """The documents of all splits with their labels.

    Raises:
        InputError: They cannot be read, or too many are bad.
    """
    if not FLAGS.data_dir:
        raise InputError(
            f"--data_dir is missing: the folder of the --format {FLAGS.format}"
        )
    folder = run_folder.local_folder(FLAGS.output_dir)
    cache = Path(FLAGS.cache_dir) if FLAGS.cache_dir else folder / "prepared"
    bad = readers.BadDocuments(FLAGS.max_bad)
    found = {
        split: prepare.prepare(
            readers.read(FLAGS.format, FLAGS.data_dir, split, bad),
            cache / f"{FLAGS.format}-{split}.jsonl",
            bad,
            most=FLAGS.oracle_sentences,
            jobs=FLAGS.jobs,
            name=split,
        )
        for split in readers.SPLITS
    }
    if bad.places:
        print(bad, flush=True)
    for line in prepare.overlaps(found):
        print(line, flush=True)
    for split, documents in found.items():
        if not all(document.references for document in documents):
            raise InputError(
                f"--data_dir: a document of {split} has no summary"
            )
    return found


def measure(
    model: keras.Model,
    documents: list[prepare.Document],
    rows: list[inputs.Encoded],
    encoding: inputs.Encoding,
    folder: Path,
) -> dict[str, Any]:
    """Summarizes the test documents, writes them down, compares by ROUGE."""
    number = FLAGS.test_limit or len(documents)
    documents, rows = documents[:number], rows[:number]
    written = record.write(
        record.from_flags(FLAGS.model), model, documents, rows, encoding
    )
    lines = [
        json.dumps({"place": d.place, "summary": s, **more}, ensure_ascii=False)
        for d, s, more in zip(
            documents, written.summaries, written.details, strict=True
        )
    ]
    files.write_text(folder / SUMMARIES, "".join(f"{x}\n" for x in lines))
    figures = evaluation.compare(
        FLAGS.model, written.summaries, documents, FLAGS.sentences
    )
    if written.tokens and FLAGS.compare_speed:
        beam = record.from_flags(FLAGS.model).beam
        size = FLAGS.eval_batch_size
        figures["speeds"] = evaluation.speeds(
            model,
            lambda stepper: evaluation.write_abstracts(
                stepper, rows[:size], encoding, beam, batch_size=size
            ),
        )
    if written.tokens:
        figures["tokens_per_second"] = written.tokens / written.seconds
    return {"test_documents": len(documents), **figures}


def held_out_figures(model: keras.Model, validation: Any) -> dict[str, float]:
    """The loss of the validation split, and perplexity, if it writes.

    As Keras has it, a mean over batches by their documents, not their tokens.
    """
    with warnings.catch_warnings():
        # Keras does not know how many batches there are.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        found = model.evaluate(validation, verbose=0, return_dict=True)
    figures = {"validation_loss": float(found["loss"])}
    for name in ("cross_entropy", dca_network.CROSS_ENTROPY):
        if name in found:
            figures["perplexity"] = math.exp(min(found[name], 700))
    return figures


def begin() -> script.Training:
    """Seeds and checks; what `script.begin` does, for one device."""
    logging.set_verbosity(logging.WARNING)
    run_folder.need_local(FLAGS.output_dir)
    backend.check_dtype()
    backend.allow_nested_calls()
    keras.utils.set_random_seed(FLAGS.seed)
    network.check_flags()
    record.check_flags(FLAGS.model)
    # Labels are written to the folder before the whole identity is known.
    run_folder.check_flags(FLAGS.output_dir, run_flags.identity())
    return script.Training(tf.distribute.get_strategy())


def form_of(
    encoding: inputs.Encoding, trained: keras.Model | None
) -> inputs.Form:
    """How documents become batches of --model, or of that which is trained."""
    if trained is not None:
        agents = dca_network.agents_of(trained)
        return dca_inputs.AgentForm(agents, encoding.marks)
    if dca_network.is_chosen():
        return dca_inputs.AgentForm(FLAGS.agents, encoding.marks)
    return inputs.BertForm(network.is_extractive())


def metric_names() -> tuple[str, ...]:
    """Columns of metrics.csv."""
    if dca_network.is_chosen():
        return dca_network.metric_names()
    return ("loss", *(() if network.is_extractive() else ("cross_entropy",)))


def main(_) -> None:
    """Trains, or resumes training, then measures."""
    training = begin()
    micro_batch = training.micro_batch_size()
    trained = dca_network.open_trained() if FLAGS.rl else None
    source, tokenizer = network.open_checkpoint()
    documents = load_documents()
    encoding = inputs.Encoding(tokenizer, FLAGS.max_tokens, FLAGS.max_target)
    rows = {
        split: inputs.encode_all(found, encoding)
        for split, found in documents.items()
    }
    inputs.print_unknown("train", rows["train"], tokenizer)
    form = form_of(encoding, trained)
    batches = inputs.Batches(rows["train"], micro_batch, form, FLAGS.seed)
    facts = {
        **initial.facts(source),
        **dca_network.facts(),
        "data_sha256": inputs.digest(rows),
    }
    folder = training.open_folder(facts)
    if dca_network.is_chosen():
        config = None
        model = dca_network.make_model(encoding, FLAGS.steps, trained)
    else:
        config = network.encoder_config(source, tokenizer)
        model = network.make_model(config, encoding.max_sentences, FLAGS.steps)
    parts = FLAGS.gradient_accumulation_steps
    per_epoch = max(batches.per_epoch // parts, 1)
    counts = ", ".join(f"{len(x):,} {split}" for split, x in documents.items())
    run = training.start(
        model,
        total_steps=FLAGS.steps,
        unit="documents",
        units_per_step=FLAGS.global_batch_size,
        metric_names=metric_names(),
        description=f"{FLAGS.format}: {counts} documents",
        steps_per_epoch=per_epoch,
        batches_per_step=parts,
        initialize=lambda: network.initialize(source, model),
    )
    if config is None:
        initial.copy_vocabulary(folder, FLAGS.vocab_file)
    else:
        initial.describe(folder, config, FLAGS.vocab_file)
    record.save(folder, record.from_flags(FLAGS.model))
    limit = FLAGS.validation_limit or len(rows["validation"])
    validation = inputs.held_out(
        rows["validation"][:limit], FLAGS.eval_batch_size, form
    )
    run.fit(
        batches.dataset,
        validation_data=validation,
        validate_every=FLAGS.eval_every or per_epoch,
    )
    writer = dca_rl.bare(model)
    figures = {
        **held_out_figures(model, validation),
        **measure(writer, documents["test"], rows["test"], encoding, folder),
        "steps": run.end_step,
        "documents_per_second": run.speed(),
        "skipped_steps": common_report.skipped_steps(model),
        "flags": run_flags.values(),
        "measured": common_report.environment(),
    }
    training.save(writer)
    training.finish(report, figures, FLAGS.model)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
