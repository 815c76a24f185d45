"""The graph that a job would send to a TPU, built without one."""

import contextlib
from collections.abc import Callable

import tensorflow as tf
from tensorflow.python.framework import kernels
from tensorflow.python.tpu import tpu_function, tpu_optimizer, training_loop

tf1 = tf.compat.v1
# Taken before the tests' fixture makes it do nothing.
disable_control_flow_v2 = tf1.disable_control_flow_v2
CORES = 8
# What the TPU's rewriting takes away or makes functions of, and the sum over
# cores, which has a kernel in TensorFlow's TPU build only.
REWRITTEN = {
    *("TPUReplicateMetadata", "TPUReplicatedInput", "TPUReplicatedOutput"),
    *("Enter", "Exit", "LoopCond", "Merge", "NextIteration", "Switch"),
    *("CrossReplicaSum", "VarHandleOp"),
}
# Compiled on CPUs, but of a shape that depends on values.
DYNAMIC = {"Unique", "UniqueV2", "Where"}


def _update(model_fn, features, labels):
    """The update of a `model_fn`: its loss, and what goes to the host."""
    spec = model_fn(features, labels, tf1.estimator.ModeKeys.TRAIN, {})
    with tf.control_dependencies([spec.train_op]):
        return [tf.identity(t) for t in (spec.loss, *spec.host_call[1])]


@contextlib.contextmanager
def _control_flow_of_jobs():
    """`job.estimator` switches for the whole process."""
    before = tf1.control_flow_v2_enabled()
    disable_control_flow_v2()
    try:
        yield
    finally:
        if before:
            tf1.enable_control_flow_v2()


def _outputs(model_fn, features, labels):
    """What an evaluation's `model_fn` sends to the host."""
    spec = model_fn(features, labels, tf1.estimator.ModeKeys.EVAL, {})
    return [spec.loss, *spec.eval_metrics[1].values()]


def sharded(
    model_fn: Callable, features, labels, *, train: bool = True
) -> tf.Graph:
    """The graph of a loop of steps on 8 cores, as TPUEstimator builds it.

    Args:
        model_fn: of the job, under flags with --use_tpu.
        features: nested arrays of a global batch.
        labels: likewise.
        train: updates, or steps of an evaluation.
    """
    step = _update if train else _outputs
    flat = tf.nest.flatten((features, labels))
    with tf.Graph().as_default() as graph, _control_flow_of_jobs():
        tf1.train.create_global_step()

        def loop(*part):
            def update(_):
                batch = tf.nest.pack_sequence_as((features, labels), part)
                # Of a loop's results TPUEstimator too keeps only the loss.
                loss, *_ = step(model_fn, *batch)
                return loss

            return training_loop.repeat(2, update, [0.0])

        tf1.tpu.shard(loop, [tf.constant(x) for x in flat], num_shards=CORES)
    return graph


def compiled(model_fn: Callable, features, labels, steps: int) -> tuple:
    """Losses of updates that XLA compiles as one core would run them.

    The sum over cores is eight times this core's part.

    Args:
        model_fn: of the job, under flags with --use_tpu.
        features: nested arrays of one core's batch.
        labels: likewise.
        steps: updates.

    Returns:
        Losses of two runs, each from the first weights, [2, steps], and the
        variables by name after the last.
    """
    flat = tf.nest.flatten((features, labels))

    def summed(x, group_assignment=None):
        return CORES * x

    def one_core(*part):
        batch = tf.nest.pack_sequence_as((features, labels), part)
        with tpu_function.tpu_shard_context(CORES):
            return _update(model_fn, *batch)

    before = tpu_optimizer.tpu_ops.cross_replica_sum
    tpu_optimizer.tpu_ops.cross_replica_sum = summed
    try:
        with tf.Graph().as_default(), tf1.Session() as session:
            tf1.train.create_global_step()
            loss, *_ = tf.xla.experimental.compile(
                one_core, [tf.constant(x) for x in flat]
            )
            first = tf1.global_variables_initializer()
            losses = []
            for _ in range(2):
                session.run(first)
                losses.append([session.run(loss) for _ in range(steps)])
            variables = {v.name[:-2]: v for v in tf1.trainable_variables()}
            return losses, session.run(variables)
    finally:
        tpu_optimizer.tpu_ops.cross_replica_sum = before


def operations(graph: tf.Graph) -> list:
    """All `NodeDef`s on the TPU, those of functions they call included."""
    definition = graph.as_graph_def()
    functions = {f.signature.name: f for f in definition.library.function}
    pending = [n for n in definition.node if "_tpu_replicate" in n.attr]
    found, seen = [], set()
    while pending:
        node = pending.pop()
        found.append(node)
        for value in node.attr.values():
            for name in (value.func.name, *(f.name for f in value.list.func)):
                if name and name not in seen:
                    seen.add(name)
                    pending += functions[name].node_def
    return found


def initial_values(graph: tf.Graph) -> set:
    """All operations that give the variables their first values."""
    pending = [v.initializer for v in graph.get_collection("variables")]
    found = set()
    while pending:
        operation = pending.pop()
        if operation not in found:
            found.add(operation)
            pending += [t.op for t in operation.inputs]
            pending += operation.control_inputs
    return found


def unfit(graph: tf.Graph) -> list[str]:
    """Operations on the TPU that it cannot run, or not well; by kind.

    TensorFlow's build without TPUs has no list of the kernels of a TPU. It has
    that of XLA's compiler for CPUs, which is nearly the same: what is not in
    it, a TPU cannot run either.
    """
    # XLA registers its kernels when it first compiles.
    with tf.init_scope():
        tf.function(tf.negative, jit_compile=True)(tf.constant(1.0))
    faults = set()
    for node in operations(graph):
        if node.op in REWRITTEN:
            continue
        found = kernels.get_registered_kernels_for_op(node.op).kernel
        if "XLA_CPU_JIT" not in {kernel.device_type for kernel in found}:
            faults.add(f"{node.op}: no XLA kernel")
        if node.op in DYNAMIC:
            faults.add(f"{node.op}: dynamic shape")
        if node.op == "Placeholder":
            faults.add("Placeholder: nothing feeds it")
        types = {v.type for v in node.attr.values()}
        if tf.float64.as_datatype_enum in types:
            faults.add(f"{node.op}: float64")
    return sorted(faults)
