"""compat.v1 optimizers: graphs, sessions, functions, wrappers, checkpoints."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import group_cases
from tests.keras3 import problems
from tests.parity_cases import LAMB, LARS, SHARED, STEPS
from tests.reference.lamb import ReferenceLAMB
from tests.reference.lamb_peers import PEERS
from tests.reference.lars import ReferenceLARS
from tf_lamb import v1
from tf_lamb.hyperparameters import LAMB_FORMS

tf1 = tf.compat.v1
# Of the cases of every front end, those that these optimizers have arguments
# for: a rate that falls comes as a tensor, clipping is the caller's.
OPTIONS = (
    "plain",
    "weight_decay",
    "exclusions",
    "excluded_from_decay_only",
    "excluded_from_adaptation_only",
    "norm_l1",
    "phi_bounds",
    "trust_ratio_bounds",
    "clip_by_unit",
    "not_compiled",
    "groups_not_adapted",
    "ratio_per_filter",
    "ratio_per_layer",
    "ratio_per_part",
)


def _cases():
    for kind, own, reference in (
        ("LAMBOptimizer", LAMB | group_cases.LAMB_CASES, ReferenceLAMB),
        ("LARSOptimizer", LARS | group_cases.LARS_CASES, ReferenceLARS),
    ):
        table = {n: SHARED[n] for n in OPTIONS}
        table.update(
            (n, c) for n, c in own.items() if "learning_rate" not in c[0]
        )
        for name, (arguments, changes) in table.items():
            yield pytest.param(
                kind, arguments, changes, reference, id=f"{kind}-{name}"
            )


class Graph:
    """Variables of the parity problem in a graph of their own."""

    def __init__(self, optimizer, names=None):
        self.graph = tf.Graph()
        with self.graph.as_default():
            values = problems.initial_values()
            self.variables = {
                n: tf1.get_variable(n, initializer=v, use_resource=True)
                for n, v in values.items()
            }
            self.grads = {
                n: tf1.placeholder(tf.float32, v.shape)
                for n, v in values.items()
            }
            self.global_step = tf1.train.get_or_create_global_step()
            self.optimizer = optimizer()
            pairs = [
                (self.grads[n], self.variables[n]) for n in names or values
            ]
            self.train = self.optimizer.apply_gradients(pairs, self.global_step)
            self.init = tf1.global_variables_initializer()
            self.session = tf1.Session()
            self.session.run(self.init)

    def run(self, steps, first_step=0, grads=problems.gradients):
        for step in range(first_step, first_step + steps):
            values = grads(step)
            feed = {self.grads[n]: values[n] for n in self.grads}
            self.session.run(self.train, feed)
        return self

    def values(self):
        return {
            n: v.astype("float64")
            for n, v in self.session.run(self.variables).items()
        }


@pytest.mark.parametrize("kind, arguments, changes, oracle", list(_cases()))
def test_equals_the_reference_over_30_steps(kind, arguments, changes, oracle):
    start = {"learning_rate": 0.02}
    if kind == "LARSOptimizer":
        start["trust_coefficient"] = 0.1
    groups = arguments.get("groups")
    if groups:
        oracle = functools.partial(group_cases.reference, oracle, groups)
        arguments = {**arguments, "groups": group_cases.groups(groups)}
    graph = Graph(lambda: getattr(v1, kind)(**start, **arguments)).run(STEPS)
    known = {
        n: x
        for n, x in arguments.items()
        if not n.startswith("exclude") and n not in ("jit_compile", "groups")
    }
    expected = problems.run_reference(
        oracle(**{**start, **known, **changes}), STEPS
    )
    assert problems.distance(graph.values(), expected) < 3e-6
    assert graph.session.run(graph.global_step) == STEPS
    assert graph.session.run(graph.optimizer.updates) == STEPS


@pytest.mark.parametrize("form", PEERS)
@pytest.mark.parametrize("excluded", [[], ["bias", "scale"]])
def test_equals_the_source_of_a_form_over_30_steps(form, excluded):
    arguments = {"weight_decay": 0.05, "exclude_from_weight_decay": excluded}
    # The forms that clip leave that to the caller here.
    clips = LAMB_FORMS[form].global_clipnorm is not None
    graph = Graph(
        lambda: v1.LAMBOptimizer(
            0.02, form=form, global_clipnorm=None, **arguments
        )
    ).run(STEPS)
    peer = PEERS[form](
        0.02,
        0.05,
        no_decay=excluded,
        **({"global_clipnorm": np.inf} if clips else {}),
    )
    expected = problems.run_reference(peer, STEPS)
    assert problems.distance(graph.values(), expected) < 1e-6


def test_a_form_that_clips_says_that_the_caller_has_to():
    message = "got global_clipnorm too; .* say global_clipnorm=None"
    for form in ("apex", "nvlamb", "timm", "lambc", "lambw"):
        with pytest.raises(ValueError, match=message) as caught:
            v1.LAMBOptimizer(0.1, form=form)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="got clipnorm too"):
        v1.LAMBOptimizer(0.1, global_clipnorm=None, clipnorm=1.0)


def test_equals_addons_over_30_steps():
    tfa = pytest.importorskip(
        "tensorflow_addons",
        reason="tensorflow-addons ends with TensorFlow 2.15",
    )
    from tests.keras2 import problems as eager

    arguments = dict(
        weight_decay=0.05,
        exclude_from_weight_decay=["bias"],
        exclude_from_layer_adaptation=["scale"],
    )
    theirs = eager.values_of(
        eager.run(tfa.optimizers.LAMB(0.02, **arguments), STEPS)
    )
    ours = Graph(lambda: v1.LAMBOptimizer(0.02, **arguments)).run(STEPS)
    for name, value in ours.values().items():
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=1e-6)


def test_rate_may_be_a_tensor_of_the_graph():
    def optimizer():
        step = tf.cast(tf1.train.get_global_step(), tf.float32)
        return v1.LAMBOptimizer(0.02 * (1 - step / 40), weight_decay=0.05)

    reference = ReferenceLAMB(lambda s: 0.02 * (1 - s / 40), weight_decay=0.05)
    expected = problems.run_reference(reference, STEPS)
    got = Graph(optimizer).run(STEPS).values()
    assert problems.distance(got, expected) < 3e-6


def test_nonfinite_gradient_changes_nothing_but_the_step():
    def grads(step):
        values = problems.gradients(step if step < 3 else step - 1)
        if step == 3:
            values["bias"][2] = np.inf
        return values

    graph = Graph(lambda: v1.LAMBOptimizer(0.02)).run(10, grads=grads)
    expected = Graph(lambda: v1.LAMBOptimizer(0.02)).run(9).values()
    for name, value in graph.values().items():
        np.testing.assert_array_equal(value, expected[name])
    counts = [graph.global_step, graph.optimizer.updates]
    counts.append(graph.optimizer.skipped_steps)
    assert graph.session.run(counts) == [10, 9, 1]


def test_sparse_gradient_adds_up_repeated_rows_and_minimize_counts_once():
    def train(sparse):
        with tf.Graph().as_default():
            table = tf1.get_variable(
                "table",
                initializer=np.ones((5, 3), "float32"),
                use_resource=True,
            )
            other = tf1.get_variable(
                "other", initializer=[1.0], use_resource=True
            )
            ids = tf.constant([1, 3, 1])
            rows = (
                tf.gather(table, ids)
                if sparse
                else tf.matmul(tf.one_hot(ids, 5), table)
            )
            loss = tf.reduce_sum(rows * tf.constant([[1.0, 2.0, 3.0]] * 3))
            step = tf1.train.get_or_create_global_step()
            optimizer = v1.LAMBOptimizer(0.1, weight_decay=0.1)
            operation = optimizer.minimize(loss, step, var_list=[table, other])
            with tf1.Session() as session:
                session.run(tf1.global_variables_initializer())
                for _ in range(3):
                    session.run(operation)
                return session.run([table, other, step])

    for a, b in zip(train(True), train(False)):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert train(True)[2] == 3
    assert train(True)[1] == [1.0]  # no gradient, no change


@pytest.mark.parametrize("adapted", [True, False], ids=["ALBERT", "BERT"])
def test_continues_a_published_optimizer_s_checkpoint(tmp_path, adapted):
    """Adam's moments without correction, as those two codes write them."""

    def theirs(first, steps, state):
        for step in range(first, first + steps):
            for n, g in problems.gradients(step).items():
                x, m, v = state[n]
                m = 0.9 * m + (1 - 0.9) * g
                v = 0.999 * v + (1 - 0.999) * g * g
                u = m / (np.sqrt(v) + 1e-6)
                u = u + 0.01 * x if n != "bias" else u
                norms = np.linalg.norm(x), np.linalg.norm(u)
                adapt = adapted and n != "bias" and min(norms) > 0
                ratio = norms[0] / norms[1] if adapt else 1.0
                state[n] = x - 0.02 * ratio * u, m, v
        return state

    start = {
        n: (x.astype("float64"), 0.0, 0.0)
        for n, x in problems.initial_values().items()
    }
    half = theirs(0, 5, dict(start))
    with tf.Graph().as_default(), tf1.Session() as session:
        names = ("{}", "{}/adam_m", "{}/adam_v")
        for n, values in half.items():
            for pattern, value in zip(names, values):
                tf1.get_variable(
                    pattern.format(n), initializer=np.float32(value)
                )
        session.run(tf1.global_variables_initializer())
        path = tf1.train.Saver().save(session, str(tmp_path / "published"))

    def optimizer():
        return v1.LAMBOptimizer(
            0.02,
            weight_decay=0.01,
            bias_correction=False,
            exclude_from_weight_decay=["bias"],
            exclude_from_layer_adaptation=None if adapted else [""],
        )

    graph = Graph(optimizer)
    with graph.graph.as_default():
        saver = tf1.train.Saver(graph.optimizer.checkpoint_names())
        saver.restore(graph.session, path)
    got = graph.run(5, first_step=5).values()
    expected = theirs(5, 5, dict(half))
    for n, (value, _, _) in expected.items():
        np.testing.assert_allclose(got[n], value, rtol=0, atol=1e-6)


def _linear_graph(make):
    """A linear model's training operation under `make(global_step)`."""
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    w = tf1.get_variable(
        "w", initializer=np.ones((3, 1), "float32"), use_resource=True
    )
    b = tf1.get_variable("b", initializer=[0.5], use_resource=True)
    loss = tf.reduce_mean(tf.square(tf.matmul(tf.constant(x), w) + b - 2))
    step = tf1.train.get_or_create_global_step()
    return make().minimize(loss, step), [w, b, step]


def test_monitored_session_goes_on_from_its_checkpoint(tmp_path):
    def train(folder, last):
        with tf.Graph().as_default():
            operation, _ = _linear_graph(lambda: v1.LAMBOptimizer(0.05))
            hooks = [tf1.train.StopAtStepHook(last_step=last)]
            with tf1.train.MonitoredTrainingSession(
                checkpoint_dir=folder, hooks=hooks, save_checkpoint_steps=5
            ) as session:
                while not session.should_stop():
                    session.run(operation)
        saved = tf.train.load_checkpoint(folder)
        return [
            saved.get_tensor(n) for n in ("w", "b", "b/adam_v", "global_step")
        ]

    assert train(str(tmp_path / "a"), 10)[-1] == 10
    resumed = train(str(tmp_path / "a"), 20)
    whole = train(str(tmp_path / "b"), 20)
    for a, b in zip(resumed, whole):
        np.testing.assert_array_equal(a, b)


def _train_in_session(make, steps=5):
    with tf.Graph().as_default(), tf1.Session() as session:
        operation, read = _linear_graph(make)
        session.run(tf1.global_variables_initializer())
        for _ in range(steps):
            session.run(operation)
        return session.run(read)


def test_inside_cross_shard_optimizer(monkeypatch):
    """The call is that of a TPU job; the sum over shards has no CPU kernel."""
    from tensorflow.python.tpu.ops import tpu_ops

    monkeypatch.setattr(tpu_ops, "cross_replica_sum", lambda x, *_, **__: x)
    plain = _train_in_session(lambda: v1.LAMBOptimizer(0.05))
    wrapped = _train_in_session(
        lambda: tf1.tpu.CrossShardOptimizer(v1.LAMBOptimizer(0.05))
    )
    for a, b in zip(plain, wrapped):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("scale", ["dynamic", 128.0])
def test_inside_a_loss_scaler(scale):
    plain = _train_in_session(lambda: v1.LAMBOptimizer(0.05))
    wrapped = _train_in_session(
        lambda: tf1.mixed_precision.MixedPrecisionLossScaleOptimizer(
            v1.LAMBOptimizer(0.05), scale
        )
    )
    assert wrapped[-1] == plain[-1] == 5
    for a, b in zip(plain, wrapped):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("kind", [v1.LAMBOptimizer, v1.LARSOptimizer])
def test_two_models_on_two_replicas_equal_one_device(kind):
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")

    def train(strategy):
        with strategy.scope():
            models = [
                [tf.Variable(c * tf.ones((3, 1))), tf.Variable([0.5])]
                for c in (1.0, 2.0)
            ]
            optimizers = [kind(0.05, weight_decay=0.1) for _ in models]
            step = tf.Variable(
                0,
                dtype=tf.int64,
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

        def replica(x, model, optimizer):
            w, b = model
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(tf.matmul(x, w) + b - 2)) / 8
            grads = tape.gradient(loss, model)
            optimizer.apply_gradients(zip(grads, model), step)

        for model, optimizer in zip(models, optimizers):
            run = tf.function(
                lambda x, m=model, o=optimizer: strategy.run(
                    replica, args=(x, m, o)
                )
            )
            rows = tf.data.Dataset.from_tensor_slices(x).batch(8).repeat(5)
            for batch in strategy.experimental_distribute_dataset(rows):
                run(batch)
        assert step.numpy() == 10
        return [v.numpy() for model in models for v in model]

    mirrored = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"],
        cross_device_ops=tf.distribute.HierarchicalCopyAllReduce(),
    )
    one = train(tf.distribute.get_strategy())
    for a, b in zip(train(mirrored), one):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert np.abs(one[0] - one[2]).max() > 0.1


def test_reference_variables_are_refused_with_the_remedy():
    with tf.Graph().as_default():
        w = tf1.get_variable("w", initializer=[1.0], use_resource=False)
        if hasattr(w, "handle"):
            pytest.skip("this TensorFlow makes resource variables only")
        with pytest.raises(ValueError, match="enable_resource_variables"):
            v1.LAMBOptimizer(0.1).apply_gradients([(tf.constant([1.0]), w)])


def test_unmatched_pattern_empty_list_and_describe():
    with tf.Graph().as_default():
        with pytest.raises(ValueError, match="'LayerNorm' matches none of 2"):
            _linear_graph(
                lambda: v1.LAMBOptimizer(
                    0.1, exclude_from_weight_decay=["LayerNorm"]
                )
            )
    with tf.Graph().as_default():
        optimizer = v1.LAMBOptimizer(
            0.1,
            exclude_from_weight_decay=["^b$"],
            exclude_from_layer_adaptation=[],
        )
        with pytest.raises(ValueError, match="knows no variables yet"):
            optimizer.describe()
        _linear_graph(lambda: optimizer)
        assert optimizer.treatments["b"] == ("b", False, True, None)
        assert "w" in optimizer.describe()


def test_trust_ratios_of_adapted_variables():
    """Without memory an update's elements are signs: |x| / sqrt(size)."""
    graph = Graph(
        lambda: v1.LAMBOptimizer(
            0.01, 0.0, 0.0, exclude_from_layer_adaptation=["bias"]
        )
    )
    optimizer = graph.optimizer
    adapted = {n for n, t in optimizer.treatments.items() if t.adapt}
    assert 0 < len(adapted) < len(graph.variables)
    feed = {graph.grads[n]: g for n, g in problems.gradients(0).items()}
    before = graph.values()
    found, _ = graph.session.run([optimizer.trust_ratios, graph.train], feed)
    assert found.keys() == adapted
    for name, ratio in found.items():
        x = before[name]
        assert ratio == pytest.approx(
            np.linalg.norm(x) / np.sqrt(x.size) or 1.0, rel=1e-4
        )


def test_no_gradient_at_all_and_bad_arguments():
    with pytest.raises(ValueError, match="No gradients provided"):
        v1.LAMBOptimizer(0.1).apply_gradients([(None, tf.Variable(1.0))])
    with pytest.raises(ValueError, match="learning_rate: expected"):
        v1.LAMBOptimizer(-1.0)
    with pytest.raises(ValueError, match="not defined for form='you2020'"):
        v1.LARSOptimizer(form="you2020", nesterov=True)


@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_variables_that_are_not_floating_are_refused_by_name(dtype):
    weight = tf.Variable(tf.ones(3), name="weight")
    other = tf.Variable(tf.cast([1, 1, 1], dtype), name="other")
    for optimizer in (v1.LAMBOptimizer(0.1), v1.LARSOptimizer(0.1)):
        with pytest.raises(ValueError, match=f"variable 'other' is {dtype};"):
            optimizer.apply_gradients(
                [(tf.ones(3), weight), (tf.ones_like(other), other)]
            )
        # One without a gradient is left alone: a counter, for instance.
        optimizer.apply_gradients([(tf.ones(3), weight), (None, other)])


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_float64_equals_the_reference_to_12_digits(name):
    """Neither rate nor decay is a float32."""
    arguments = dict(weight_decay=0.05)
    make = getattr(v1, f"{name}Optimizer")
    ours = make(0.02, **arguments)
    reference = {"LAMB": ReferenceLAMB, "LARS": ReferenceLARS}[name](
        0.02, **arguments
    )
    params = problems.initial_values("float64")
    variables = {n: tf.Variable(x, name=n) for n, x in params.items()}
    for step in range(10):
        grads = problems.gradients(step, "float64")
        ours.apply_gradients([(grads[n], v) for n, v in variables.items()])
        params = reference.step(params, grads)
    got = {n: v.numpy() for n, v in variables.items()}
    assert problems.distance(got, params) < 1e-12


@pytest.mark.parametrize("updates", [-1, -7])
def test_a_count_of_updates_below_0_gives_no_nan(updates):
    w = tf.Variable(np.ones(3, "float32"))
    optimizer = v1.LAMBOptimizer(0.25)
    for _ in range(2):
        optimizer.apply_gradients([(tf.ones(3), w)])
        assert np.isfinite(w.numpy()).all()
        optimizer.updates.assign(updates)


def test_narrow_variable_has_wide_moments():
    w = tf.Variable(np.ones(70_000), dtype=tf.float16)
    optimizer = v1.LAMBOptimizer(0.25)
    grad = tf.fill([70_000], tf.cast(0.5, tf.float16))
    optimizer.apply_gradients([(grad, w)])
    np.testing.assert_allclose(w.numpy(), 0.75, rtol=1e-2)
    assert optimizer.get_slot(w, "m").dtype == tf.float32


def test_import_brings_in_no_keras_that_tensorflow_does_not():
    code = (
        "import sys, tensorflow\n"
        "before = set(sys.modules)\n"
        "import tf_lamb.v1\n"
        "new = set(sys.modules) - before\n"
        "assert not [m for m in new if 'keras' in m], new\n"
        "assert 'tf_lamb.v1' in new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weight_decay_may_be_a_function():
    optimizer = v1.LAMBOptimizer(
        0.125,
        weight_decay=lambda: 0.5,
        exclude_from_layer_adaptation=[""],
    )
    weight = tf.Variable([3.0, 4.0], name="w")
    optimizer.apply_gradients([(tf.zeros(2), weight)])
    np.testing.assert_allclose(weight, [3 * 0.9375, 4 * 0.9375], rtol=1e-6)
    with pytest.raises(AttributeError, match="weight_decay: it stays"):
        optimizer.weight_decay = 0.25


def test_what_only_keras_has_is_refused():
    with pytest.raises(ValueError, match="LAMBOptimizer: .* got clipnorm too"):
        v1.LAMBOptimizer(0.1, clipnorm=1.0)


def test_describe_before_the_first_update():
    optimizer = v1.LAMBOptimizer(exclude_from_weight_decay="biases_and_norms")
    optimizer.build([tf.Variable(tf.ones((2, 2)), name="k")])
    optimizer.build([tf.Variable([1.0], name="b")])
    assert optimizer.treatments == {
        "k": ("k", True, True, None),
        "b": ("b", False, False, None),
    }
    assert "b         1      no     no" in optimizer.describe()
