"""One update of a TPUEstimator job: rate, gradients, clipping, summaries."""

from __future__ import annotations

import tensorflow as tf
from absl import flags

from official_models.common.errors import InputError
from official_models.common.ops import keras2
from tf_lamb import exclusion, schedule_checks, schedules, v1, wrapped

tf1 = tf.compat.v1
FLAGS = flags.FLAGS


class ClippedOptimizer(tf1.train.Optimizer):
    """Clips the gradient of the whole batch, then updates.

    To be wrapped by `CrossShardOptimizer`, not the other way round: that one
    hands on the gradients summed over all cores, so the norm is that of the
    batch's gradient and the same on each core. Clipped before the sum, each
    core would cut its own part by another factor.

    Args:
        optimizer: makes the update.
        clipnorm: largest global norm, more than 0; None for no clipping.
        name: name of the optimizer.

    Attributes:
        gradient_norm: global norm before the clipping, float32 scalar; None
            before `apply_gradients`.
    """

    def __init__(
        self,
        optimizer: tf1.train.Optimizer,
        clipnorm: float | None = None,
        name: str = "ClippedOptimizer",
    ):
        super().__init__(False, name)
        self.optimizer = optimizer
        self.gradient_norm = None
        self._clipnorm = clipnorm

    def compute_gradients(self, loss, var_list=None, **kwargs):
        """Dense gradients: `CrossShardOptimizer` sums no others."""
        pairs = self.optimizer.compute_gradients(loss, var_list, **kwargs)
        return [
            (g if g is None else tf.convert_to_tensor(g), v) for g, v in pairs
        ]

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        """Clips and applies; the arguments are those of the base class."""
        pairs = [(g, v) for g, v in grads_and_vars if g is not None]
        grads, variables = zip(*pairs)
        self.gradient_norm = tf.linalg.global_norm(
            [tf.cast(g, tf.float32) for g in grads]
        )
        if self._clipnorm:
            grads, _ = tf.clip_by_global_norm(
                grads, self._clipnorm, self.gradient_norm
            )
        return self.optimizer.apply_gradients(
            list(zip(grads, variables)), global_step, name
        )

    def get_slot(self, *args, **kwargs):
        return self.optimizer.get_slot(*args, **kwargs)

    def get_slot_names(self):
        return self.optimizer.get_slot_names()

    def variables(self):
        return self.optimizer.variables()


def dtype_policy() -> str:
    """The Keras dtype policy of --precision.

    It is for Keras layers what `tpu.bfloat16_scope` is for `get_variable`:
    float32 variables that are cast where they are used.
    """
    bfloat16 = FLAGS.precision == "bfloat16"
    return "mixed_bfloat16" if bfloat16 else "float32"


def learning_rate(
    global_step: tf.Tensor, total_steps: int, warmup_steps: int
) -> tf.Tensor:
    """The rate of the flags at a step, float32 scalar.

    Raises:
        InputError: a flag's value makes no sense.
    """
    options = {
        "learning_rate": FLAGS.learning_rate,
        "total_steps": total_steps,
        "warmup_steps": warmup_steps,
        "end_learning_rate": FLAGS.end_learning_rate,
        "power": FLAGS.power,
        "decay_from": FLAGS.decay_from,
    }
    try:
        schedule_checks.check_warmup_polynomial(**options)
    except ValueError as error:
        raise InputError(f"--{error}") from error
    return schedules.warmup_polynomial(
        tf, tf.cast(global_step, tf.float32), **options
    )


def make_optimizer(rate: tf.Tensor | float) -> tf1.train.Optimizer:
    """The optimizer of the flags, without clipping.

    Raises:
        InputError: a flag's value makes no sense.
    """
    try:
        return _make_optimizer(rate)
    except (ValueError, TypeError) as error:
        raise InputError(f"--{error}") from error


def _make_optimizer(rate):
    if FLAGS.optimizer == "momentum":
        if FLAGS.weight_decay:
            raise ValueError(
                f"weight_decay {FLAGS.weight_decay}: momentum has none; "
                "expected 0, and L2 in the loss"
            )
        return tf1.train.MomentumOptimizer(
            rate, FLAGS.momentum, use_nesterov=FLAGS.nesterov
        )
    common = {
        "weight_decay": FLAGS.weight_decay,
        "exclude_from_weight_decay": _patterns(FLAGS.exclude_from_weight_decay),
        "exclude_from_layer_adaptation": _patterns(
            FLAGS.exclude_from_layer_adaptation
        ),
        "unmatched": "raise",
        "norm": FLAGS.norm,
        "moment_dtype": FLAGS.moment_dtype,
        "clip_by_unit": FLAGS.clip_by_unit or None,
        # On a TPU the whole step is compiled.
        "jit_compile": not FLAGS.use_tpu,
    }
    if FLAGS.optimizer == "lars":
        return v1.LARSOptimizer(
            rate,
            FLAGS.momentum,
            trust_coefficient=FLAGS.trust_coefficient,
            form=FLAGS.form or "you2017",
            nesterov=FLAGS.nesterov,
            **common,
        )
    if FLAGS.optimizer == "lamb":
        own = {"epsilon": FLAGS.epsilon}
        own["bias_correction"] = FLAGS.bias_correction
        if FLAGS.form:
            own = {
                n: None if FLAGS[n].using_default_value else value
                for n, value in own.items()
            }
        return v1.LAMBOptimizer(
            rate,
            FLAGS.beta_1,
            FLAGS.beta_2,
            form=FLAGS.form or "paper",
            cautious=FLAGS.cautious,
            global_clipnorm=None,  # the job clips
            **own,
            **common,
        )
    # BERT's AdamW: no bias correction, and no variable is adapted.
    adam = (FLAGS.beta_1, FLAGS.beta_2, FLAGS.epsilon)
    common["exclude_from_layer_adaptation"] = [""]
    return v1.LAMBOptimizer(rate, *adam, bias_correction=False, **common)


def _patterns(given):
    """A flag's regexes as the optimizers take them: a preset is no list."""
    preset = exclusion.BIASES_AND_NORMS
    return preset if given == [preset] else given


def seed_dropout(tokens: tf.Tensor) -> None:
    """Makes the dropout masks a function of the step and the core's examples.

    To be called by a `model_fn` in training before its model. A resumed job
    draws the masks that an uninterrupted one would, and each core draws its
    own.

    Args:
        tokens: integers of this core's examples, [B, ...].
    """
    flat = tf.reshape(tf.cast(tokens, tf.int32), [-1])
    # int32 wraps around: a hash. An odd factor loses no bits.
    places = 2 * tf.range(tf.size(flat)) + 1
    step = tf.cast(tf1.train.get_or_create_global_step(), tf.int32)
    key = tf.reduce_sum(flat * places * 40503) + step * 1566083941
    keras2.seed_dropout(key)


def train_spec(
    loss: tf.Tensor,
    folder: str,
    *,
    total_steps: int,
    warmup_steps: int,
    scaffold_fn=None,
    update_ops=(),
    metrics: dict[str, tf.Tensor] | None = None,
) -> tf1.estimator.tpu.TPUEstimatorSpec:
    """What a `model_fn` returns in training: an update by the flags.

    A core's loss is the mean over its own part of the batch, and the update
    goes by the mean of the cores' losses. Where the examples weigh differently
    (masked tokens) that is not quite the mean over the batch.

    Args:
        loss: of this core's examples, float32 scalar, without weight decay.
        folder: for summaries.
        total_steps: updates of the run.
        warmup_steps: of them, in which the rate grows.
        scaffold_fn: of the spec; `warm_start.scaffold_fn` gives one.
        update_ops: operations that belong to an update, such as those of the
            batch norms' running statistics.
        metrics: more scalars for the summaries, by name.

    Raises:
        InputError: a flag's value makes no sense.
    """
    global_step = tf1.train.get_or_create_global_step()
    rate = learning_rate(global_step, total_steps, warmup_steps)
    clipped = ClippedOptimizer(
        make_optimizer(rate), FLAGS.global_clipnorm or None
    )
    optimizer = clipped
    if FLAGS.use_tpu:
        optimizer = tf1.tpu.CrossShardOptimizer(clipped)
    try:
        with tf.control_dependencies(list(update_ops)):
            train_op = optimizer.minimize(loss, global_step)
    except ValueError as error:
        raise InputError(f"--{error}") from error
    ratios = {}
    for inner in wrapped.find_optimizers(optimizer):
        ratios.update(inner.trust_ratios)
    values = {
        "loss": loss,
        "learning_rate": rate,
        "gradient_norm": clipped.gradient_norm,
        **(metrics or {}),
        **{f"trust_ratio/{name}": ratio for name, ratio in ratios.items()},
    }
    with tf.control_dependencies([train_op]):
        step = global_step.read_value()
    return tf1.estimator.tpu.TPUEstimatorSpec(
        tf1.estimator.ModeKeys.TRAIN,
        loss=loss,
        train_op=train_op,
        host_call=_host_call(folder, step, values),
        scaffold_fn=scaffold_fn,
    )


def _host_call(folder: str, step: tf.Tensor, values: dict[str, tf.Tensor]):
    """Summaries of scalars, written by the host every --log_every updates.

    A TPU hands tensors to the host only with a batch axis, and then with one
    row a core: the scalars go in one matrix [1, len(values)].
    """
    every = FLAGS.log_every or FLAGS.iterations_per_loop
    names = list(values)
    row = tf.stack([tf.cast(v, tf.float32) for v in values.values()])

    def write(step, rows):
        step = step[0]
        writer = tf.summary.create_file_writer(folder)
        with writer.as_default(step):
            with tf.summary.record_if(tf.equal(step % every, 0)):
                means = tf.unstack(tf.reduce_mean(rows, 0), len(names))
                for name, mean in zip(names, means):
                    tf.summary.scalar(name, mean)
        return tf1.summary.all_v2_summary_ops()

    return write, [tf.reshape(step, [1]), row[tf.newaxis]]
