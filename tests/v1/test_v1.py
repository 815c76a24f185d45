"""compat.v1 optimizers: graphs, sessions, functions, wrappers, checkpoints."""

import functools

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
