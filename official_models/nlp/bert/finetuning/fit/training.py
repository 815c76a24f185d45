"""A model fine-tuned by Keras' `fit`: its arrays, its task, one seed.

Axes: N examples, T tokens.
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning.fit import batches
from official_models.nlp.text import vocabulary

TOKENS = ("input_ids", "input_mask", "segment_ids")
Scores = dict[str, dict[str, float]]
BLOCK = 4096
_SECONDS = 60.0


class Encoded(NamedTuple):
    """Examples as arrays.

    Attributes:
        inputs: {name in `TOKENS`: int32 [N, T]}.
        labels: [N], or {output of the model: [N]}.
    """

    inputs: dict[str, np.ndarray]
    labels: Any

    @property
    def number(self) -> int:
        """N."""
        return len(self.inputs[TOKENS[0]])

    def take(self, rows: np.ndarray) -> Encoded:
        """These rows of it."""
        return keras.tree.map_structure(lambda array: array[rows], self)

    def add_to(self, digest, name: str) -> None:
        """Updates a digest of hashlib by a split's name, N and all values."""
        digest.update(f"{name} ({self.number},)".encode())
        for array in keras.tree.flatten(self):
            digest.update(np.ascontiguousarray(array))


class Measured(NamedTuple):
    """How good a model is.

    Attributes:
        scores: {split: {metric: value}}.
        files: {name: JSON value} of what it predicted, to be written down.
    """

    scores: Scores
    files: Mapping[str, Any] = {}


class Task(Protocol):
    """Data to train on, and to measure by after each epoch.

    Attributes:
        name: Of the task, for people.
        unit: What a row is, "examples" or "windows".
        train: Its rows.
        labels: Names of a classifier's labels; none of another model.
        compared_by: Split and metric that decide which model is best.
        figures: Of the data, for the report, as JSON values.
        record: What prediction has to know, as JSON values.
    """

    name: str
    unit: str
    train: Encoded
    labels: Sequence[str]
    compared_by: tuple[str, str]
    figures: Mapping[str, Any]
    record: Mapping[str, Any]

    def make_model(self, config, seed: int, dtype: str) -> keras.Model:
        """A model with the task's head and initial weights."""

    def compile_arguments(self) -> dict[str, Any]:
        """The loss, as `compile` takes it."""

    def measure(self, model: keras.Model, batch_size: int) -> Measured:
        """Measures a model on the validation splits."""

    def digest(self) -> str:
        """SHA-256 of all data, what it is measured by included."""

    def __str__(self) -> str: ...


def stacked(
    rows: Iterable[Mapping[str, Sequence]], dtypes: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Rows as arrays.

    Args:
        rows: {name: values}, one or more.
        dtypes: {name: dtype} of what is taken.

    Returns:
        {name: [N, values]}.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in dtypes}
    rows = iter(rows)
    # Lists of integers take ten times the memory of arrays.
    while block := list(itertools.islice(rows, BLOCK)):
        for name, dtype in dtypes.items():
            part = np.asarray([row[name] for row in block], dtype)
            parts[name].append(part)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def print_unknown(split: str, data: Encoded, tokenizer) -> None:
    """Prints how many tokens of a split its vocabulary does not know."""
    ids, mask = (data.inputs[name] for name in TOKENS[:2])
    count = vocabulary.count_unknown(ids, tokenizer)
    print(f"{split}: {vocabulary.unknown_words(count, int(mask.sum()))}.")


def new_digest():
    """A digest for `Encoded.add_to`."""
    return hashlib.sha256()


def outputs_of(
    model: keras.Model,
    inputs: Mapping[str, np.ndarray],
    batch_size: int,
    by_length: bool = False,
) -> Any:
    """The model's outputs, float32 [N, ...].

    Args:
        model: Trained.
        inputs: {name in `TOKENS`: [N, T]}.
        batch_size: Rows at once.
        by_length: Rows of about the same length are computed together,
            without most padding; for outputs without the axis T.

    Raises:
        InputError: They are not finite.
    """
    if by_length:
        found = batches.predict(model, inputs, batch_size)
    else:
        found = model.predict(dict(inputs), batch_size=batch_size, verbose=0)
    if not all(np.isfinite(x).all() for x in keras.tree.flatten(found)):
        raise InputError(
            "the outputs are not finite: the training has diverged; lower "
            "--learning_rate"
        )
    return keras.tree.map_structure(lambda x: np.asarray(x, "float32"), found)


class Progress(keras.callbacks.Callback):
    """Prints the step and the loss of an epoch about once a minute.

    Args:
        name: Begins the lines.
        steps: Batches of the epoch.
        seconds: Between two lines.
    """

    def __init__(self, name: str, steps: int, seconds: float = _SECONDS):
        super().__init__()
        self._name, self._steps, self._seconds = name, steps, seconds
        self._shown = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        now = time.monotonic()
        if now - self._shown < self._seconds:
            return
        self._shown = now
        loss = float((logs or {}).get("loss", float("nan")))
        print(
            f"{self._name}: batch {batch + 1:,} of {self._steps:,}, "
            f"loss {loss:.4f}",
            flush=True,
        )


class Fitting(NamedTuple):
    """How a model is trained.

    Attributes:
        epochs: At most so many.
        patience: Epochs without a better score before it stops; 0: none does.
        steps_per_epoch: Updates; what is left over of an epoch's order is not
            seen in it.
        batch_size: Rows in memory at once.
        batches_per_step: Micro-batches of an update.
        eval_batch_size: Rows at once where none is trained.
        length_buckets: Batches have rows of about the same length, without
            most of their padding (`batches.by_length`).
    """

    epochs: int
    patience: int
    steps_per_epoch: int
    batch_size: int
    batches_per_step: int
    eval_batch_size: int
    length_buckets: bool = False

    @property
    def updates(self) -> int:
        """Of all epochs."""
        return self.steps_per_epoch * self.epochs

    def fit(
        self,
        model: keras.Model,
        task: Task,
        seed: int,
        report: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """Trains a model; it has the weights of its best epoch in the end.

        Args:
            model: Compiled.
            task: The data, and how it is measured.
            seed: Of the order of the rows, which is another one in each
                epoch.
            report: Called after each epoch with what is listed of it.

        Returns:
            `seed`, `best_epoch` (from 1), its `scores`, the `epochs`, and
            `examples_per_second` (or of the task's unit) in training, the
            median of the epochs without the first, which holds the
            compilation, if there are others; and the files of the best epoch.

        Raises:
            InputError: The training has diverged.
        """
        split, metric = task.compared_by
        rows: list[dict[str, Any]] = []
        best, weights, files = -1, None, {}
        for epoch in range(self.epochs):
            row = self._epoch(model, task, seed, epoch)
            found = task.measure(model, self.eval_batch_size)
            row["scores"] = found.scores
            rows.append(row)
            report(row)
            score = found.scores[split][metric]
            if best < 0 or score > rows[best]["scores"][split][metric]:
                best, weights, files = epoch, model.get_weights(), found.files
            if self.patience and epoch - best >= self.patience:
                break
        model.set_weights(weights)
        speed = f"{task.unit}_per_second"
        speeds = [row[speed] for row in rows]
        result = {
            "seed": seed,
            "best_epoch": best + 1,
            "scores": rows[best]["scores"],
            speed: statistics.median(speeds[1:] or speeds),
            "epochs": rows,
        }
        return result, files

    def _epoch(self, model, task: Task, seed: int, epoch: int) -> dict:
        number = self.steps_per_epoch * self.batches_per_step
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(task.train.number)
        order = order[: number * self.batch_size]
        began = time.perf_counter()
        history = model.fit(
            **self._data(task.train, order, rng),
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=[Progress(f"seed {seed}, epoch {epoch + 1}", number)],
        )
        seconds = time.perf_counter() - began
        return {
            "epoch": epoch + 1,
            "loss": float(history.history["loss"][0]),
            f"{task.unit}_per_second": len(order) / seconds,
        }

    def _data(self, train: Encoded, order, rng) -> dict[str, Any]:
        """What `fit` is given of the rows in this order."""
        if not self.length_buckets:
            part = train.take(order)
            x, y, size = part.inputs, part.labels, self.batch_size
            return {"x": x, "y": y, "batch_size": size}
        lengths = batches.lengths_of(train.inputs)
        rows = batches.by_length(lengths, order, self.batch_size, rng)
        return {"x": batches.Batches(train.inputs, train.labels, rows)}
