"""Documents and summaries as token ids, and batches of them.

Axes: B batch, T tokens of a document, S its sentences, L tokens of a summary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from tokenizers import Tokenizer

from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning.fit.batches import by_length
from official_models.nlp.summarization import model
from official_models.nlp.summarization.prepare import Document
from official_models.nlp.text import vocabulary

# Beginning, end, and sentence break of a summary.
_MARKS = ("[unused0]", "[unused1]", "[unused2]")
# Where a vocabulary was trained here, and has none of these.
_OTHER_MARKS = ("[CLS]", "[SEP]", "[MASK]")


class Marks(NamedTuple):
    """Token ids of a summary's marks.

    Attributes:
        begin: Before the first token.
        end: After the last.
        sentence: Between two sentences.
    """

    begin: int
    end: int
    sentence: int


class Encoded(NamedTuple):
    """A document as token ids.

    Attributes:
        input_ids: `[CLS] s1 [SEP] [CLS] s2 [SEP] ...`, [T].
        segment_ids: 0 and 1 in turns, by sentence, [T].
        clss: Positions of the [CLS], [S].
        labels: 1 for the oracle's sentences, [S].
        target: `begin, s1, sentence, s2, ..., end`, [L + 1]; empty without a
            summary.
    """

    input_ids: np.ndarray
    segment_ids: np.ndarray
    clss: np.ndarray
    labels: np.ndarray
    target: np.ndarray


class Encoding:
    """How documents become token ids.

    Args:
        tokenizer: Of the encoder.
        max_tokens: T at most, 3 or more. Sentences beyond are left out; the
            last one is cut, with its [SEP] at the end.
        max_target: Tokens of a summary at most, marks included, 3 or more;
            the rest is left out, but for the end.
        max_sentences: S at most.

    Attributes:
        marks: Of summaries: [unused0], [unused1], [unused2] of a published
            vocabulary; in one without, [CLS], [SEP], [MASK], which no text
            has either.
        begins_word: Of each id, whether a word begins with it, bool [V].
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_tokens: int,
        max_target: int,
        max_sentences: int = 512,
    ):
        self.tokenizer = tokenizer
        self.max_tokens, self.max_target = max_tokens, max_target
        self.max_sentences = max_sentences
        ids = [tokenizer.token_to_id(token) for token in _MARKS]
        if None in ids:
            ids = [tokenizer.token_to_id(token) for token in _OTHER_MARKS]
        self.marks = Marks(*ids)
        self.begins_word = vocabulary.begins_word(tokenizer)
        self._cls = tokenizer.token_to_id("[CLS]")
        self._sep = tokenizer.token_to_id("[SEP]")

    def encode(self, document: Document) -> Encoded:
        """The arrays of a document; with its first reference as the target."""
        ids: list[int] = []
        segments: list[int] = []
        clss: list[int] = []
        for i, sentence in enumerate(document.sentences[: self.max_sentences]):
            room = self.max_tokens - len(ids)
            if room < 3:
                break
            tokens = self._ids(sentence)[: room - 2]
            clss.append(len(ids))
            ids += [self._cls, *tokens, self._sep]
            segments += [i % 2] * (len(tokens) + 2)
        labels = np.zeros(len(clss), "int32")
        labels[[i for i in document.oracle if i < len(clss)]] = 1
        target = []
        if document.references:
            target = self._target(document.references[0])
        return Encoded(
            *(np.array(x, "int32") for x in (ids, segments, clss)),
            labels,
            np.array(target, "int32"),
        )

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _target(self, reference: Sequence[str]) -> list[int]:
        found = [self.marks.begin]
        for i, sentence in enumerate(reference):
            found += [self.marks.sentence] * (i > 0) + self._ids(sentence)
        return [*found[: self.max_target - 1], self.marks.end]

    def text(self, ids: Sequence[int]) -> list[str]:
        """The sentences of a summary's tokens, marks left out."""
        found: list[list[int]] = [[]]
        for token in ids:
            if token == self.marks.sentence:
                found.append([])
            elif token not in self.marks:
                found[-1].append(int(token))
        texts = [self.tokenizer.decode(part).strip() for part in found]
        return [text for text in texts if text]


def encode_all(
    documents: Sequence[Document], encoding: Encoding
) -> list[Encoded]:
    """All documents as token ids."""
    return [encoding.encode(document) for document in documents]


def print_unknown(name: str, rows: Sequence[Encoded], tokenizer) -> None:
    """Prints the share of [UNK] in some documents."""
    ids = np.concatenate([row.input_ids for row in rows])
    count = vocabulary.count_unknown(ids, tokenizer)
    print(f"{name}: {vocabulary.unknown_words(count, len(ids))}.")


def digest(splits: dict[str, list[Encoded]]) -> str:
    """SHA-256 of all arrays of some splits."""
    found = hashlib.sha256()
    for name, rows in splits.items():
        found.update(f"{name} {len(rows)}".encode())
        for row in rows:
            for array in row:
                found.update(len(array).to_bytes(8, "little"))
                found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def stack(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows, each followed by zeros, [B, longest]; at least one column."""
    longest = max(1, *(len(row) for row in rows))
    found = np.zeros((len(rows), longest), "int32")
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return found


def document_batch(rows: Sequence[Encoded]) -> dict[str, np.ndarray]:
    """The model's inputs of some documents, without the target.

    Returns:
        {name in `model.DOCUMENT` and `model.SENTENCES`: int32 [B, T] or
        [B, S]}, as long as the longest.
    """
    return {
        "input_ids": stack([row.input_ids for row in rows]),
        "input_mask": stack([np.ones_like(row.input_ids) for row in rows]),
        "segment_ids": stack([row.segment_ids for row in rows]),
        "clss": stack([row.clss for row in rows]),
        "sentence_mask": stack([np.ones_like(row.clss) for row in rows]),
    }


def training_batch(
    rows: Sequence[Encoded], extractive: bool
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Inputs, labels and sample weights, as `fit` takes them."""
    inputs = document_batch(rows)
    if extractive:
        labels = stack([row.labels for row in rows])
        return inputs, labels, inputs["sentence_mask"].astype("float32")
    inputs = {name: inputs[name] for name in model.DOCUMENT}
    inputs[model.TARGET] = stack([row.target[:-1] for row in rows])
    labels = stack([row.target[1:] for row in rows])
    ones = [np.ones(len(row.target) - 1, "int32") for row in rows]
    return inputs, labels, stack(ones).astype("float32")


class Form(Protocol):
    """How rows become batches of a model."""

    def batch(self, rows: Sequence[Encoded]) -> tuple:
        """Inputs, labels and sample weights, as `fit` takes them."""

    def signature(self) -> tuple:
        """Their `tf.TensorSpec`."""


class BertForm(NamedTuple):
    """That of BertSum.

    Attributes:
        extractive: Whether labels are those of sentences.
    """

    extractive: bool

    def batch(self, rows: Sequence[Encoded]) -> tuple:
        """As `training_batch`."""
        return training_batch(rows, self.extractive)

    def signature(self) -> tuple:
        """Of `training_batch`."""
        other = model.SENTENCES if self.extractive else (model.TARGET,)
        ints = tf.TensorSpec((None, None), "int32")
        return (
            {name: ints for name in (*model.DOCUMENT, *other)},
            ints,
            tf.TensorSpec((None, None), "float32"),
        )


class Batches:
    """The micro-batches of a run, a function of their numbers and the seed.

    In each epoch the documents are in another order; those of a batch have
    about the same length (`finetuning.fit.batches.by_length`). What is left
    over of an epoch is not seen in it.

    Args:
        rows: Of the training split.
        batch_size: B, of a micro-batch.
        form: Of the model.
        seed: Of the orders.

    Attributes:
        per_epoch: Micro-batches of an epoch.

    Raises:
        InputError: There are fewer documents than a batch has.
    """

    def __init__(
        self,
        rows: Sequence[Encoded],
        batch_size: int,
        form: Form,
        seed: int,
    ):
        if len(rows) < batch_size:
            raise InputError(
                f"--global_batch_size: {batch_size} documents in memory at "
                f"once, but there are {len(rows)}; give a smaller one"
            )
        self._rows, self._batch_size = rows, batch_size
        self._form, self._seed = form, seed
        self._lengths = np.array([len(row.input_ids) for row in rows])
        self.per_epoch = len(rows) // batch_size

    def _epoch(self, number: int) -> list[np.ndarray]:
        rng = np.random.default_rng((self._seed, number))
        order = rng.permutation(len(self._rows))
        order = order[: self.per_epoch * self._batch_size]
        return by_length(self._lengths, order, self._batch_size, rng)

    def dataset(self, first: int, last: int) -> tf.data.Dataset:
        """Micro-batches `first` to `last` - 1 of the run."""

        def generate() -> Iterator[Any]:
            epoch, batches = -1, []
            for i in range(first, last):
                if i // self.per_epoch != epoch:
                    epoch = i // self.per_epoch
                    batches = self._epoch(epoch)
                chosen = batches[i % self.per_epoch]
                yield self._form.batch([self._rows[j] for j in chosen])

        return _dataset(generate, self._form)


def held_out(
    rows: Sequence[Encoded], batch_size: int, form: Form
) -> tf.data.Dataset:
    """All rows once, sorted by length, the last batch smaller."""
    rows = sorted(rows, key=lambda row: len(row.input_ids))

    def generate() -> Iterator[Any]:
        for i in range(0, len(rows), batch_size):
            yield form.batch(rows[i : i + batch_size])

    return _dataset(generate, form)


def _dataset(
    generate: Callable[[], Iterator[Any]], form: Form
) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(
        generate, output_signature=form.signature()
    ).prefetch(2)
