"""A watched worker: `python -m tests.multi_worker.monitored_worker DIR`.

TF_CONFIG says which of the two workers this is. It trains twice, the second
time under the monitor and the noise scale.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

import tf_lamb
from tests.multi_worker import worker
from tf_lamb import multi_worker

EVERY = 8


def watchers(folder):
    """The two callbacks, whose files are below a folder."""
    x, y = worker.data()
    y = y.astype("float32")
    return [
        tf_lamb.TrainingMonitor(
            str(folder), (x, y), EVERY, tensorboard=False, png=False
        ),
        tf_lamb.GradientNoiseScale(
            (x, y), 2, 16, EVERY, csv_path=folder / "noise.csv", verbose=False
        ),
    ]


def main():
    folder = Path(sys.argv[1])
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    multi_worker.enable_fit()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    found = {}
    for name in ("alone", "watched"):
        model = multi_worker.build_same(strategy, worker.make_model)
        callbacks = []
        if name == "watched":
            (folder / str(index)).mkdir()
            callbacks = watchers(folder / str(index))
        model.fit(worker.dataset(), callbacks=callbacks, verbose=0)
        for i, weight in enumerate(model.get_weights()):
            found[f"{name} {i}"] = weight
    found["noise"] = callbacks[1].result.value
    np.savez(folder / f"{index}.npz", **found)


if __name__ == "__main__":
    main()
