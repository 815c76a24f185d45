r"""What a pretrained model knows of pairs of segments: order and topic.

    python -m official_models.nlp.albert.sentence_pairs --checkpoint RUN \
        --input 'books/train/*.txt' --eval_input 'books/held_out/*.txt'

Two tasks, whichever the model was trained on: next sentences (NSP: is the
second segment what follows, or from elsewhere?) and sentence order (SOP: are
the two as written, or swapped?). For each, on held-out pairs with as many of
either label, so that chance is 50%:

- head: the model's own answer. Label 1 is "not as written" in both tasks, so
  that the answer to one is also one to the other.
- probe: a linear classifier of the frozen pooled output, fitted by least
  squares to pairs of --input with the task's own labels.

- lengths: the same classifier of the two segments' lengths alone. What it gets
  right needs no reading: where text is cut off depends on the order.

The same of the same model with its initial weights stands beside it. Texts are
not masked.

References:
    Lan et al. 2019 (arXiv:1909.11942), section 4.6, table 5. The paper does not
    say how a model that was trained on one task answers the other.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from absl import flags, logging

from official_models.common import errors, files, report
from official_models.common.errors import InputError
from official_models.nlp.bert.pretraining import inputs, packing
from official_models.nlp.checkpoint import models, opening
from official_models.nlp.checkpoint.source import load
from official_models.nlp.text import corpus

FLAGS = flags.FLAGS
TASKS = {"next_sentence": False, "sentence_order": True}
_BATCH = 256


def define_flags() -> None:
    """Defines this script's flags."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    string("checkpoint", None, f"It is {opening.EXPECTED}.")
    string(
        "vocab_file",
        None,
        "A vocab.txt or a SentencePiece .model. Default: the one beside the "
        "checkpoint.",
    )
    flags.DEFINE_list(
        "input", None, "Texts for the probe: files, quoted globs or folders."
    )
    flags.DEFINE_list("eval_input", None, "Held-out texts, given alike.")
    integer("max_seq_length", 64, "Tokens of a sequence.", 5)
    integer("probe_examples", 4096, "Pairs that train a probe, at most.", 2)
    integer("eval_examples", 8192, "Held-out pairs of a task, at most.", 2)
    integer("seed", 1, "Seed of the pairs and the initial weights.", 0)
    string("output", None, "A JSON file for the figures. Default: none.")
    flags.mark_flags_as_required(["checkpoint", "input", "eval_input"])


def pairs(
    documents: list[list[np.ndarray]],
    tokenizer,
    sentence_order: bool,
    most: int,
) -> packing.PackedPairs:
    """Pairs of a task at random, as many of either label.

    Args:
        documents: of `corpus.tokenize`.
        tokenizer: of the model.
        sentence_order: whether the task is SOP.
        most: how many, at most.

    Raises:
        InputError: there is no pair of one of the labels.
    """
    packed = packing.pack_pairs(
        documents,
        tokenizer,
        FLAGS.max_seq_length,
        sentence_order=sentence_order,
        seed=FLAGS.seed,
    )
    order = np.random.default_rng(FLAGS.seed).permutation(len(packed.lengths))
    labels = packed.next_sentence_labels[order]
    number = min(most // 2, *np.bincount(labels, minlength=2))
    if not number:
        raise InputError(
            f"{len(order)} pairs of text, all with the same label; expected "
            "longer texts"
        )
    rows = [order[labels == label][:number] for label in (0, 1)]
    return packing.PackedPairs(*(x[np.concatenate(rows)] for x in packed))


def reader(model: keras.Model) -> keras.Model:
    """From ids, mask and segments to pooled outputs and pair logits."""
    heads = model.get_layer("cls")
    names = "input_ids", "input_mask", "segment_ids"
    inputs = {name: model.input[name] for name in names}
    pooled = model.get_layer("bert")(**inputs)[1]
    answer = getattr(heads, heads.PAIR)(pooled)
    return keras.Model(inputs, {"pooled": pooled, "answer": answer})


def read(model: keras.Model, packed: packing.PackedPairs) -> dict:
    """What a `reader` says of pairs, as arrays."""
    place = np.arange(packed.input_ids.shape[1])
    inputs = {
        "input_ids": packed.input_ids,
        "input_mask": (place < packed.lengths[:, None]).astype("int32"),
        "segment_ids": packed.segment_ids,
    }
    return model.predict(inputs, batch_size=_BATCH, verbose=0)


def lengths(packed: packing.PackedPairs) -> np.ndarray:
    """Tokens of the first and of the second segment, [N, 2]."""
    second = packed.segment_ids.sum(1)
    return np.stack([packed.lengths - second, second], 1)


def probe(
    train: np.ndarray, labels: np.ndarray, held_out: np.ndarray
) -> np.ndarray:
    """Labels of held-out features by the least-squares linear classifier.

    Args:
        train: features, [N, H].
        labels: 0 or 1, [N].
        held_out: features, [M, H].

    Returns:
        0 or 1, [M].
    """
    ones = [np.ones((len(x), 1)) for x in (train, held_out)]
    train, held_out = (
        np.hstack([x.astype("float64"), one])
        for x, one in zip((train, held_out), ones)
    )
    weights, *_ = np.linalg.lstsq(train, 2.0 * labels - 1, rcond=1e-6)
    return (held_out @ weights > 0).astype("int32")


def measure(reads: keras.Model, splits: dict[str, dict]) -> dict[str, Any]:
    """{task: accuracies of head and probe} of a model.

    Args:
        reads: a `reader`.
        splits: {"train" or "eval": {task: pairs}}.
    """
    found = {}
    for task in TASKS:
        train, held_out = (splits[name][task] for name in ("train", "eval"))
        labels = held_out.next_sentence_labels
        features = read(reads, held_out)
        guesses = probe(
            read(reads, train)["pooled"],
            train.next_sentence_labels,
            features["pooled"],
        )
        by_length = probe(
            lengths(train), train.next_sentence_labels, lengths(held_out)
        )
        found[task] = {
            "head": float((features["answer"].argmax(1) == labels).mean()),
            "probe": float((guesses == labels).mean()),
            "lengths": float((by_length == labels).mean()),
            "pairs": len(labels),
            "standard_error": 0.5 / math.sqrt(len(labels)),
        }
    return found


def show(figures: dict) -> str:
    """The figures as a table."""
    names = "head", "probe", "lengths"
    head = "".join(f"{name:>9}" for name in names)
    lines = [f"{'':11}{'':16}{head}{'pairs':>8}{'+-':>7}"]
    for weights in ("trained", "untrained"):
        for task, row in figures[weights].items():
            shares = "".join(f"{row[name]:9.1%}" for name in names)
            lines.append(
                f"{weights:11}{task:16}{shares}{row['pairs']:8,}"
                f"{row['standard_error']:7.1%}"
            )
    return "\n".join(lines)


def main(_) -> None:
    """Measures a checkpoint and the same model before its training."""
    logging.set_verbosity(logging.WARNING)
    source = opening.open_source(
        FLAGS.checkpoint, vocab_file=FLAGS.vocab_file, flag="--checkpoint"
    )
    if source.config is None or not source.has(models.PAIR):
        raise InputError(
            f"{source.where}: no pretraining heads; expected a model that was "
            "pretrained on pairs, with its configuration"
        )
    positions = source.config.max_position_embeddings
    if FLAGS.max_seq_length > positions:
        raise InputError(
            f"--max_seq_length {FLAGS.max_seq_length}: {source.where} has "
            f"{positions} positions; expected no more"
        )
    tokenizer = source.tokenizer.load(source.where)
    paths = [corpus.expand_inputs(x) for x in (FLAGS.input, FLAGS.eval_input)]
    inputs.check_held_out(*paths)
    splits: dict[str, dict] = {}
    for split, texts, most in (
        ("train", paths[0], FLAGS.probe_examples),
        ("eval", paths[1], FLAGS.eval_examples),
    ):
        tokens = corpus.tokenize(corpus.read_documents(texts), tokenizer)
        splits[split] = {
            task: pairs(tokens, tokenizer, is_order, most)
            for task, is_order in TASKS.items()
        }
    model = models.make(source.config, "pretrainer", seed=FLAGS.seed)
    reads = reader(model)
    untrained = measure(reads, splits)
    print(load(source, model))
    figures = {
        "trained": measure(reads, splits),
        "untrained": untrained,
        "measured": report.environment(),
    }
    print(show(figures))
    if FLAGS.output:
        files.write_json(FLAGS.output, figures)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
