"""Three steps of a layer that a partitioner has split, for test_partitioned.

    python -m tests.keras2.partitioned FILE

The cluster (a worker, two parameter servers) is in this process.
"""

import json
import sys

import tensorflow as tf

from tests.processes import free_ports
from tf_lamb import keras2

JOBS = {"worker": 1, "ps": 2}
STEPS = 3
INPUTS = [[1.0, 2.0, 3.0, 4.0]]
ARGUMENTS = {"learning_rate": 0.1, "weight_decay": 0.1}


def _strategy():
    ports = iter(free_ports(sum(JOBS.values())))
    spec = tf.train.ClusterSpec(
        {
            kind: [f"127.0.0.1:{next(ports)}" for _ in range(n)]
            for kind, n in JOBS.items()
        }
    )
    servers = [
        tf.distribute.Server(spec, job_name=kind, task_index=i)
        for kind, n in JOBS.items()
        for i in range(n)
    ]
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, rpc_layer="grpc"
    )
    halves = tf.distribute.experimental.partitioners.FixedShardsPartitioner(2)
    strategy = tf.distribute.ParameterServerStrategy(
        resolver, variable_partitioner=halves
    )
    return strategy, servers


def main(file):
    strategy, servers = _strategy()
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        layer = keras2.keras.layers.Dense(1, use_bias=False, name="dense")
        layer.build((None, 4))
        variables = layer.trainable_variables
        optimizer = keras2.LAMB(**ARGUMENTS)
        optimizer.build(variables)

    @tf.function
    def step(x):
        def replica(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(x))
            grads = tape.gradient(loss, variables)
            optimizer.apply_gradients(zip(grads, variables))

        strategy.run(replica, args=(x,))

    initial = [v.numpy().tolist() for v in variables]
    for _ in range(STEPS):
        coordinator.schedule(step, args=(tf.constant(INPUTS),))
        coordinator.join()
    result = {
        "initial": initial,
        "end": [v.numpy().tolist() for v in variables],
        "trust_ratios": optimizer.trust_ratios,
    }
    with open(file, "w") as out:
        json.dump(result, out)
    del servers


if __name__ == "__main__":
    main(sys.argv[1])
