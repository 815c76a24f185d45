"""Masked tokens of English books, predicted by BERT tiny.

The score is the loss on held-out books, in nats a masked token; rates are
chosen on other held-out books.
"""

import tarfile
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.batch_scaling import studies
from official_models.common.errors import InputError
from official_models.nlp.bert import model as bert
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.pretraining import (
    batches as pretraining_batches,
)
from official_models.nlp.bert.pretraining import (
    masking,
    packing,
)
from official_models.nlp.text import corpus, wordpiece

SEQ_LENGTH = 16
PREDICTIONS = 3
VOCABULARY = 4096
HELD_OUT_BOOKS = 4  # for validation, and as many for the score
SEED = 0  # of vocabulary, packing and split


def _books(data_dir: str, folder: str) -> list[list[str]]:
    """Documents of a folder of texts, or of a tar archive of one."""
    if not data_dir:
        raise InputError(
            "--data_dir: the masked_lm task wants a folder of plain-text "
            "books, or a tar archive of one"
        )
    path = Path(data_dir)
    if path.is_file():
        try:
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{path}: not a tar archive ({error})") from error
        path = Path(folder)
    files = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".md"))
    if len(files) < 4 * HELD_OUT_BOOKS:
        raise InputError(
            f"{data_dir}: {len(files)} .txt or .md files, expected at least "
            f"{4 * HELD_OUT_BOOKS} books"
        )
    return corpus.read_documents(files)


class _Batches:
    """Masked batches as tuples of arrays; `pretraining_dataset` by number."""

    def __init__(self, packed, batch, seed, total, arguments):
        self.total, self.next = total, 0
        dataset = pretraining_batches.pretraining_dataset(
            packed,
            batch_size=batch,
            first_step=0,
            last_step=total,
            seed=seed,
            **arguments,
        )
        self.iterator = iter(dataset)

    def __len__(self):
        return self.total

    def __getitem__(self, step):
        if step != self.next:
            raise IndexError(f"step {step}: expected {self.next}, in order")
        self.next += 1
        return _flat(*next(self.iterator))


def _flat(x, y, weights):
    return (
        x["input_ids"],
        x["input_mask"],
        x["segment_ids"],
        x["masked_lm_positions"],
        y["masked_lm"],
        weights["masked_lm"],
    )


class MaskedLM:
    """BERT tiny on books; see the module."""

    jit_compile = True
    part = 64
    trains_on_all = True  # books that choose the rate are no training books

    def __init__(self, data_dir, epochs):
        self.study = studies.study("masked_lm", epochs)
        self.decay = studies.DECAY["masked_lm"]
        self.exclusions = studies.EXCLUSIONS["masked_lm"]
        with tempfile.TemporaryDirectory() as folder:
            books = _books(data_dir, folder)
        order = np.random.default_rng(SEED).permutation(len(books))
        books = [books[i] for i in order]
        n = HELD_OUT_BOOKS
        with tempfile.TemporaryDirectory() as folder:
            # The vocabulary is one of training books.
            self.tokenizer = wordpiece.train_tokenizer(
                books[2 * n :], VOCABULARY, Path(folder) / "vocab.txt"
            )
        self.train, self.validation, self.test = (
            packing.pack_pairs(
                corpus.tokenize(part, self.tokenizer),
                self.tokenizer,
                SEQ_LENGTH,
                seed=SEED,
            )
            for part in (books[2 * n :], books[:n], books[n : 2 * n])
        )
        self.arguments = {
            "max_predictions": PREDICTIONS,
            **masking.masking_arguments(self.tokenizer),
        }

    def batches(self, cell, epochs):
        total = round(epochs * studies.SEQUENCES / cell.batch)
        return _Batches(
            self.train, cell.batch, cell.seed, total, self.arguments
        )

    def model(self, seed):
        config = BertConfig.of_size(
            "tiny",
            self.arguments["vocab_size"],
            max_position_embeddings=SEQ_LENGTH,
            hidden_dropout=0.0,
            attention_dropout=0.0,
        )
        network = bert.bert_pretrainer(config, seed=seed)
        # What only the next sentence would train has no gradient here.
        network.get_layer("bert").pooler.trainable = False
        network.get_layer("cls").next_sentence.trainable = False
        return network

    def _sums(self, network, part, training):
        """Sum of losses and of weights over the masked tokens."""
        ids, mask, segments, positions, labels, weights = part
        logits = network(
            {
                "input_ids": ids,
                "input_mask": mask,
                "segment_ids": segments,
                "masked_lm_positions": positions,
            },
            training=training,
        )["masked_lm"]
        nll = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=labels, logits=logits
        )
        return tf.reduce_sum(nll * weights), tf.reduce_sum(weights)

    def loss(self, network, part):
        total, count = self._sums(network, part, True)
        return total / tf.maximum(count, 1.0)

    def score(self, network, cell) -> float:
        packed = self.validation if cell.validates else self.test
        examples = len(packed.lengths)
        size = min(256, examples)
        total = examples // size
        batches = _Batches(packed, size, SEED, total, self.arguments)

        @tf.function(autograph=False, jit_compile=self.jit_compile)
        def sums(*part):
            return self._sums(network, part, False)

        found = np.sum([sums(*batches[k]) for k in range(total)], axis=0)
        return float(found[0] / found[1])
