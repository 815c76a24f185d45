"""A worker of the tests here: `python -m tests.multi_worker.worker TASK ...`.

TF_CONFIG says which of the two workers this is.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

import tf_lamb
from tf_lamb import multi_worker

LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
if LEGACY or tf.__version__.startswith("2.15."):
    keras = tf_lamb.keras2.keras
else:
    import keras

ROWS, BATCH, STEPS = 80, 16, 24
FIRST_WORKERS_INDEX = 0


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 5)).astype("float32")
    return x, (x[:, :1] - x[:, 1:2] + 0.1 * rng.normal(size=(ROWS, 1)))


def dataset(skip=0, batch=BATCH):
    """STEPS batches, the same order each time; every worker takes its rows."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    rows = tf.data.Dataset.from_tensor_slices(data())
    batches = rows.batch(batch).repeat().take(STEPS).skip(skip)
    return batches.with_options(options)


def make_model(
    width=8,
    layers=1,
    activation="tanh",
    loss="mse",
    optimizer="LAMB",
    **arguments,
):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5,))]
        + [keras.layers.Dense(width, activation) for _ in range(layers)]
        + [keras.layers.Dense(1)]
    )
    arguments = {"exclude_from_weight_decay": ["bias"], **arguments}
    optimizer = getattr(tf_lamb, optimizer)(
        **{"learning_rate": 0.02, "weight_decay": 0.1, **arguments}
    )
    model.compile(optimizer, loss, metrics=["mae"])
    return model


# What worker 1 does otherwise -> what the message has to name.
DIFFERENCES = {
    "model's width": ({"width": 9}, "variable 0"),
    "number of layers": ({"layers": 2}, "number of variables"),
    "activation": ({"activation": "relu"}, "'s activation"),
    "loss": ({"loss": "mae"}, "disagree on loss"),
    "learning rate": ({"learning_rate": 0.03}, "learning_rate"),
    "betas": ({"beta_2": 0.99}, "beta_2"),
    "pattern list": (
        {"exclude_from_weight_decay": []},
        "exclude_from_weight_decay",
    ),
    "optimizer": ({"optimizer": "LARS"}, "disagree on optimizer"),
}


def disagree(strategy, index, folder):
    """Worker 1 differs, in one thing after another; both have to refuse."""
    for name, (change, _) in DIFFERENCES.items():
        began = time.monotonic()
        arguments = change if index else {}
        try:
            multi_worker.build_same(
                strategy, lambda a=arguments: make_model(**a)
            )
            message = "not refused"
        except ValueError as error:
            message = str(error)
        result = {"message": message, "seconds": time.monotonic() - began}
        file = folder / f"{name} {index}.json"
        file.write_text(json.dumps(result))
    model = multi_worker.build_same(strategy, make_model)
    names = [w.path if hasattr(w, "path") else w.name for w in model.weights]
    (folder / f"same {index}.json").write_text(json.dumps(names))


def loops(strategy, index, folder):
    """fit, evaluate, predict and save; 72 rows make the last batch partial."""
    model = multi_worker.build_same(strategy, make_model)
    x, y = data()
    history = model.fit(
        dataset(),
        validation_data=dataset(batch=24).take(3),
        epochs=2,
        verbose=0,
    ).history
    evaluated = model.evaluate(
        dataset(batch=24).take(4), verbose=0, return_dict=True
    )
    rows = tf.data.Dataset.from_tensor_slices(x).batch(24)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    predicted = model.predict(rows.with_options(options), verbose=0)
    multi_worker.save(model, folder / "model.keras")
    several = multi_worker.build_same(strategy, make_model)
    several.compile(several.optimizer, "mse", steps_per_execution=4)
    try:
        several.fit(dataset(), epochs=2, verbose=0)
        message = "not refused"
    except ValueError as error:
        message = str(error)
    result = {
        "history": history,
        "evaluate": evaluated,
        "predict": predicted.tolist(),
        "several steps": message,
        "weights": [w.tolist() for w in model.get_weights()],
    }
    (folder / f"loops {index}.json").write_text(json.dumps(result))


def resumable(strategy, index, folder, slow=0.0, report_first=False):
    """Trains STEPS steps from the last checkpoint; writes the end's weights.

    A step is reported in the log after its checkpoint, or before it.
    """
    model = multi_worker.build_same(
        strategy,
        lambda: make_model(gradient_accumulation_steps=2, global_clipnorm=0.5),
    )
    steps = multi_worker.Checkpoint(folder / "checkpoints", every=3)
    done = steps.restore(model)

    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            # One write: the other worker prints to the same file.
            line = f"worker {index} step {done + batch + 1}\n"
            print(line, end="", flush=True)
            time.sleep(slow)

    callbacks = [Slow(), steps] if report_first else [steps, Slow()]
    if done < STEPS:
        model.fit(dataset(done), callbacks=callbacks, verbose=0)
    if index == 0:
        end = {f"w{i}": w for i, w in enumerate(model.get_weights())}
        np.savez(folder / "end.npz", **end)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["disagree", "loops", "resumable"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--report_first", action="store_true")
    arguments = parser.parse_args()
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if not LEGACY:
        multi_worker.enable_fit()
    task = {"disagree": disagree, "loops": loops, "resumable": resumable}
    options = {}
    if arguments.task == "resumable":
        options = {
            "slow": arguments.slow,
            "report_first": arguments.report_first,
        }
    task[arguments.task](strategy, index, arguments.folder, **options)


if __name__ == "__main__":
    sys.exit(main())
