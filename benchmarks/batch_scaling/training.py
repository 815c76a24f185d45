"""One cell: a model trained from scratch by one optimizer, then judged."""

import dataclasses
import math
import time

import keras
import tensorflow as tf

import tf_lamb
from benchmarks.batch_scaling.grid import Cell

DIVERGED = "diverged"


def make_optimizer(cell: Cell, decay, exclusions, total_steps, warmup_steps):
    """The optimizer of a cell, with a linear warmup and a linear decay to 0.

    Args:
        cell: names the optimizer, its rate and what is varied.
        decay: {optimizer: weight decay}.
        exclusions: regexes of what is neither decayed nor adapted.
        total_steps: length of the run.
        warmup_steps: of these, those in which the rate rises.
    """
    rate = tf_lamb.WarmupPolynomial(
        cell.learning_rate, total_steps, min(warmup_steps, total_steps)
    )
    common = dict(weight_decay=decay[cell.optimizer])
    changes = {}
    if cell.variation:
        changes = {
            name: value
            for name, value in VARIATIONS[cell.variation].items()
            if name not in ("warmup", "epochs")
        }
    if cell.optimizer == "lamb":
        arguments = dict(exclude_from_weight_decay=exclusions) | common
        lamb = changes.pop("optimizer", tf_lamb.LAMB)
        return lamb(rate, **(arguments | changes))
    if cell.optimizer == "lars":
        arguments = dict(exclude_from_weight_decay=exclusions) | common
        return tf_lamb.LARS(rate, 0.9, **(arguments | changes))
    if cell.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, epsilon=1e-6, **common)
    elif cell.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, 0.9, **common)
    else:
        raise ValueError(f"optimizer {cell.optimizer!r} is not known")
    optimizer.exclude_from_weight_decay(var_names=list(exclusions))
    return optimizer


# What a variation changes: the optimizer or arguments of it, or by which factor
# the warmup or the epochs.
VARIATIONS = {
    "epochs x 4": {"epochs": 4.0},
    "warmup x 1/4": {"warmup": 0.25},
    "warmup x 2": {"warmup": 2.0},
    "phi in [0, 10]": {"phi_bounds": (0.0, 10.0)},
    "all adapted": {"exclude_from_layer_adaptation": ()},
    "all decayed and adapted": {
        "exclude_from_weight_decay": (),
        "exclude_from_layer_adaptation": (),
    },
    "none adapted": {"exclude_from_layer_adaptation": ("",)},
    "no decay": {"weight_decay": 0.0},
    "clipped to norm 1": {"global_clipnorm": 1.0},
    "beta_2 .99": {"beta_2": 0.99},
    "norms per filter": {
        "groups": [tf_lamb.Group("", trust_ratio_per="filter")]
    },
    "momentum .8": {"momentum": 0.8},
}


def make_step(model, optimizer, loss, parts: int, jit_compile: bool):
    """A compiled update on a batch that is worked through in `parts`.

    The gradient is the mean of the parts'; what a model derives from a batch
    (BatchNorm's statistics) is of one part, as it is of one replica.

    Args:
        model: with built variables.
        optimizer: of the same Keras.
        loss: (model, part of the batch) -> scalar mean.
        parts: by which the batch can be divided.
        jit_compile: whether XLA compiles the whole.

    Returns:
        A function of a batch (a tuple of arrays [B, ...]); gives the loss.
    """
    variables = model.trainable_variables
    optimizer.build(variables)

    def part_of(batch, i):
        sizes = [x.shape[0] // parts for x in batch]
        return tuple(
            tf.slice(x, [i * n] + [0] * (x.shape.rank - 1), [n, *x.shape[1:]])
            for x, n in zip(batch, sizes)
        )

    def gradients(part):
        with tf.GradientTape() as tape:
            value = loss(model, part)
        return value, tape.gradient(value, variables)

    @tf.function(autograph=False, jit_compile=jit_compile)
    def step(*batch):
        if parts == 1:
            value, sums = gradients(batch)
        else:

            def body(i, total, sums):
                value, found = gradients(part_of(batch, i))
                sums = [s + g for s, g in zip(sums, found)]
                return i + 1, total + value, sums

            zeros = [tf.zeros(v.shape, v.dtype) for v in variables]
            _, value, sums = tf.while_loop(
                lambda i, *_: i < parts,
                body,
                (0, tf.zeros(()), zeros),
                maximum_iterations=parts,
                parallel_iterations=1,
            )
            value = value / parts
            sums = [s / parts for s in sums]
        optimizer.apply(sums)
        return value

    return step


def train(task, cell: Cell) -> dict:
    """Trains and judges.

    Args:
        task: of `tasks`.
        cell: what to run.

    Returns:
        For JSON: the score, training losses at ten points, steps, seconds. Of a
        run that chooses a rate, where it is trained on as much as any other,
        also the score that it has by the test split, "test_score".
    """
    began = time.perf_counter()
    keras.backend.clear_session()
    keras.utils.set_random_seed(cell.seed)
    factor = VARIATIONS[cell.variation].get if cell.variation else {}.get
    epochs = task.study.epochs * factor("epochs", 1.0)
    batches = task.batches(cell, epochs)
    total = len(batches)
    warmup = cell.warmup_epochs * factor("warmup", 1.0) * total / epochs
    model = task.model(cell.seed)
    optimizer = make_optimizer(
        cell, task.decay, task.exclusions, total, round(warmup)
    )
    parts = max(1, cell.batch // task.part)
    step = make_step(model, optimizer, task.loss, parts, task.jit_compile)
    losses, marks = [], {round(total * k / 10) for k in range(1, 11)}
    ended = ""
    for k in range(total):
        value = step(*map(tf.constant, batches[k]))
        if k + 1 in marks:
            losses.append(float(value))
            if not math.isfinite(losses[-1]):
                ended = DIVERGED
                break
    score = task.study.worst if ended else task.score(model, cell)
    if not math.isfinite(score):
        score, ended = task.study.worst, DIVERGED
    more = {}
    if cell.validates and task.trains_on_all and not ended:
        judged = dataclasses.replace(cell, stage="retuned")
        more["test_score"] = task.score(model, judged)
    return {
        "score": score,
        **more,
        "losses": [round(x, 4) if math.isfinite(x) else None for x in losses],
        "steps": total,
        "warmup_steps": round(warmup),
        "ended": ended,
        "skipped_steps": sum(
            x.skipped_steps for x in tf_lamb.find_optimizers(optimizer)
        ),
        "seconds": round(time.perf_counter() - began, 1),
    }
