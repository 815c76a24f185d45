"""A worker that trains alone: `python -m tests.multi_worker.local_worker DIR`.

TF_CONFIG says which of the two workers this is.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

import tf_lamb
from tests.multi_worker.worker import data, keras

BATCH, STEPS, WORKERS = 8, 10, 2
TASKS = {"fit 1": 1, "fit 4": 4, "loop 4": 4}


def make_model(steps=1, seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((5,)), keras.layers.Dense(8, "tanh")]
    layers += [keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    # A batch's statistics are each worker's own, which synchronous SGD's on
    # the global batch are not.
    model.layers[1].trainable = steps > 1
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def batches(index, steps=STEPS):
    """A worker's batches, NumPy: the next BATCH rows of the data in turn."""
    x, y = data()
    for k in range(steps):
        rows = (np.arange(BATCH) + BATCH * (WORKERS * k + index)) % len(x)
        yield x[rows], y[rows].astype("float32")


def dataset(index, steps=STEPS):
    x, y = map(np.concatenate, zip(*batches(index, steps)))
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)


def main():
    folder = Path(sys.argv[1])
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    for task, steps in TASKS.items():
        model = make_model(steps, index)  # which the chief's weights replace
        local = tf_lamb.LocalSGD(steps, strategy)
        if task.startswith("fit"):
            model.fit(dataset(index), callbacks=[local], verbose=0)
        else:
            local.set_model(model)
            for x, y in batches(index):
                model.train_on_batch(x, y)
                local.record(model)
            local.close()
        ends = {f"w{i}": w for i, w in enumerate(model.get_weights())}
        np.savez(
            folder / f"{task} {index}.npz", averages=local.averages, **ends
        )
    model = make_model()
    local = tf_lamb.LocalSGD(4, strategy)
    try:
        # 8 updates and 6: both are at an average after 4, not after that.
        model.fit(dataset(index, 8 - 2 * index), callbacks=[local], verbose=0)
        message = "not refused"
    except ValueError as error:
        message = str(error)
    (folder / f"message {index}.txt").write_text(message)


if __name__ == "__main__":
    main()
