"""A process of a cluster: trains the cells of a strategy and writes weights.

    python -m tests.support_matrix.worker FRONT_END STRATEGY FOLDER

TF_CONFIG says which process this is. The first worker, or the chief, writes
`FOLDER/FEATURE.npz`: weights, or the error that ended the run.
"""

import functools
import json
import os
import sys
import traceback
from pathlib import Path

import numpy as np
import tensorflow as tf

from official_models.common import files
from tests.support_matrix import training
from tests.support_matrix.environment import keras_and_module
from tests.support_matrix.features import BATCH, EPOCHS, FEATURES, ROWS, data
from tests.support_matrix.table import CELLS
from tf_lamb import multi_worker


def _coordinated(strategy, coordinator, keras, lamb, feature):
    """Batch after batch, each by whichever worker is free."""
    model, optimizer = training.make(
        keras, lamb, feature, feature.arguments, strategy
    )
    with strategy.scope():
        # Slots have to be there before a worker traces the step.
        if lamb.__module__ == "tf_lamb.v1":
            optimizer._create_slots(model.trainable_variables)
        else:
            optimizer.build(model.trainable_variables)
    (x, ids), y = data(feature)

    @tf.function
    def step(*batch):
        def replica(*batch):
            grads = training.gradients(model, optimizer, batch, BATCH)
            training.apply(model, optimizer, grads)

        strategy.run(replica, args=batch)

    for _ in range(EPOCHS):
        for i in range(0, ROWS, BATCH):
            rows = slice(i, i + BATCH)
            batch = tuple(map(tf.constant, (x[rows], ids[rows])))
            coordinator.schedule(step, args=(batch, tf.constant(y[rows])))
            coordinator.join()
    training.finish(model, optimizer)
    return model


def _fit_asynchronously(strategy, keras, lamb):
    """tf_keras' `fit` with a coordinator; returns what there is to check."""
    feature = FEATURES["fit"]
    model, optimizer = training.make(keras, lamb, feature, {}, strategy)
    batches = tf.data.Dataset.from_tensor_slices(data(feature)).repeat()
    history = model.fit(
        batches.batch(BATCH), epochs=EPOCHS, steps_per_epoch=4, verbose=0
    ).history
    return {"updates": optimizer.iterations.numpy(), "loss": history["loss"]}


def _refusals(strategy, coordinator, keras, module):
    """What the table says that a parameter server refuses: the errors' text."""

    def fit():
        feature = FEATURES["fit"]
        model, _ = training.make(keras, module.LAMB, feature, {}, strategy)
        rows = tf.data.Dataset.from_tensor_slices(data(feature)).batch(BATCH)
        model.fit(coordinator.create_per_worker_dataset(lambda: rows))

    def mixed():
        feature = FEATURES["float16 scaled"]
        _coordinated(strategy, coordinator, keras, module.LAMB, feature)

    try:
        fit() if module.__name__ == "tf_lamb.keras3" else mixed()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def _write(folder, name, arrays):
    path = Path(folder) / f"{name}.npz"
    with files.replacing(path) as temporary:
        np.savez(temporary, **arrays)


def main(name, strategy_name, folder):
    task = json.loads(os.environ["TF_CONFIG"])["task"]
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    coordinated = strategy_name.startswith("ParameterServer")
    if coordinated and task["type"] != "chief":
        tf.distribute.Server(
            resolver.cluster_spec(),
            job_name=task["type"],
            task_index=task["index"],
            protocol="grpc",
            start=True,
        ).join()
    if coordinated:
        strategy = tf.distribute.ParameterServerStrategy(resolver)
        coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(
            cluster_resolver=resolver
        )
    keras, module = keras_and_module(name)
    if module.__name__ == "tf_lamb.keras3":
        multi_worker.enable_fit()
    run = (
        functools.partial(_coordinated, strategy, coordinator)
        if coordinated
        else lambda *cell: training.train(*cell, strategy)[0]
    )
    if coordinated and module.__name__ == "tf_lamb.keras2":
        result = _fit_asynchronously(strategy, keras, module.LAMB)
        _write(folder, "asynchronous", result)
    if coordinated and module.__name__ != "tf_lamb.v1":
        text = _refusals(strategy, coordinator, keras, module)
        (Path(folder) / "refused.txt").write_text(text, encoding="utf-8")
    for feature_name, feature in FEATURES.items():
        if CELLS[name, strategy_name, feature_name] is not True:
            continue
        try:
            model = run(keras, module.LAMB, feature)
        except Exception:  # the other cells are to be seen all the same
            print(f"{feature_name}: failed", flush=True)
            traceback.print_exc()
            continue
        weights = {f"w{i}": w for i, w in enumerate(model.get_weights())}
        if task["type"] == "chief" or task["index"] == 0:
            _write(folder, feature_name, weights)
        print(f"{feature_name}: done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
