"""A classifier of GLUE fine-tuned by Keras' `fit`: its arrays, one seed.

Axes: N examples, T tokens, K labels.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning import features, metrics
from official_models.nlp.datasets import glue

TOKENS = ("input_ids", "input_mask", "segment_ids")
Scores = dict[str, dict[str, float]]
_ROWS = 4096


class Encoded(NamedTuple):
    """A split as arrays.

    Attributes:
        inputs: {name in `TOKENS`: int32 [N, T]}.
        labels: int32 [N]; float32 of a regression.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> Encoded:
        """These rows of it."""
        return Encoded(
            {name: x[rows] for name, x in self.inputs.items()},
            self.labels[rows],
        )


def encode(
    examples: Sequence[glue.Example],
    task: glue.Task,
    tokenizer,
    max_seq_length: int,
) -> Encoded:
    """Examples as the arrays of `features.encode`.

    Raises:
        InputError: as there.
    """
    parts: dict[str, list[np.ndarray]] = {}
    # Lists of integers take ten times the memory of arrays.
    for first in range(0, len(examples), _ROWS):
        rows = features.encode(
            examples[first : first + _ROWS], tokenizer, max_seq_length
        )
        for name in (*TOKENS, "label_ids"):
            dtype = "int32"
            if name == "label_ids" and task.is_regression:
                dtype = "float32"
            part = np.asarray([row[name] for row in rows], dtype)
            parts.setdefault(name, []).append(part)
    arrays = {name: np.concatenate(x) for name, x in parts.items()}
    return Encoded(
        {name: arrays[name] for name in TOKENS}, arrays["label_ids"][:, 0]
    )


def digest(splits: Mapping[str, Encoded]) -> str:
    """SHA-256 of the arrays of all splits."""
    found = hashlib.sha256()
    for name, split in splits.items():
        found.update(f"{name} {split.labels.shape}".encode())
        for array in (*split.inputs.values(), split.labels):
            found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def logits_of(
    model: keras.Model, inputs: Mapping[str, np.ndarray], batch_size: int
) -> np.ndarray:
    """Logits [N, K] of the model.

    Raises:
        InputError: they are not finite.
    """
    logits = model.predict(dict(inputs), batch_size=batch_size, verbose=0)
    if not np.isfinite(logits).all():
        raise InputError(
            "the outputs are not finite: the training has diverged; lower "
            "--learning_rate"
        )
    return np.asarray(logits, "float32")


def loss_of(task: glue.Task) -> keras.losses.Loss:
    """-log softmax(logits)[label]; (score - label) ** 2 of a regression."""
    if task.is_regression:
        return keras.losses.MeanSquaredError()
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def main_score(task: glue.Task, scores: Scores) -> float:
    """What models are compared by: a metric of the first validation split."""
    return scores[task.dev_splits[0]][metrics.names_of(task)[-1]]


class Fitting(NamedTuple):
    """How a model is trained.

    Attributes:
        epochs: at most so many.
        patience: epochs without a better score before it stops; 0: none does.
        steps_per_epoch: updates; what is left over of an epoch's order is not
            seen in it.
        batch_size: examples in memory at once.
        batches_per_step: micro-batches of an update.
        eval_batch_size: examples at once in validation.
    """

    epochs: int
    patience: int
    steps_per_epoch: int
    batch_size: int
    batches_per_step: int
    eval_batch_size: int

    def fit(
        self,
        model: keras.Model,
        task: glue.Task,
        splits: Mapping[str, Encoded],
        seed: int,
        report: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> dict[str, Any]:
        """Trains a model; it has the weights of its best epoch in the end.

        Args:
            model: compiled.
            task: of the data.
            splits: "train", and the task's validation splits.
            seed: of the order of the examples, which is another one in each
                epoch.
            report: called after each epoch with what is listed of it.

        Returns:
            `seed`, `best_epoch` (from 1), its `scores`, the `epochs`, and
            `examples_per_second` in training, the median of the epochs without
            the first, which holds the compilation, if there are others.

        Raises:
            InputError: the training has diverged.
        """
        rows: list[dict[str, Any]] = []
        best, weights = -1, None
        for epoch in range(self.epochs):
            row = self._epoch(model, task, splits, seed, epoch)
            rows.append(row)
            report(row)
            score = main_score(task, row["scores"])
            if best < 0 or score > main_score(task, rows[best]["scores"]):
                best, weights = epoch, model.get_weights()
            if self.patience and epoch - best >= self.patience:
                break
        model.set_weights(weights)
        speeds = [row["examples_per_second"] for row in rows]
        return {
            "seed": seed,
            "best_epoch": best + 1,
            "scores": rows[best]["scores"],
            "examples_per_second": statistics.median(speeds[1:] or speeds),
            "epochs": rows,
        }

    def _epoch(self, model, task, splits, seed: int, epoch: int) -> dict:
        train = splits["train"]
        number = self.steps_per_epoch * self.batches_per_step * self.batch_size
        order = np.random.default_rng((seed, epoch)).permutation(
            len(train.labels)
        )
        part = train.take(order[:number])
        began = time.perf_counter()
        history = model.fit(
            part.inputs,
            part.labels,
            batch_size=self.batch_size,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
        )
        seconds = time.perf_counter() - began
        scores = {
            name: metrics.measure(
                task,
                logits_of(model, splits[name].inputs, self.eval_batch_size),
                splits[name].labels,
            )
            for name in task.dev_splits
        }
        return {
            "epoch": epoch + 1,
            "loss": float(history.history["loss"][0]),
            "scores": scores,
            "examples_per_second": number / seconds,
        }
