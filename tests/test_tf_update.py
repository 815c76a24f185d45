"""TensorFlow's compiled update: how often it compiles, and where it runs."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lamb
from tf_lamb import Group, arithmetic, tf_ops, tf_update

SHAPES = [(3, 5), (5,), (7, 5), (7,), (2, 2, 3), (11,), (13, 2), ()]
UNITS = ("LAMB-unit", "LARS-unit")
FORMS = [
    "LAMB",
    "LAMB-lans",
    "LAMB-cautious",
    *UNITS,
    *(f"LARS-{form}" for form in tf_lamb.hyperparameters.LARS_FORMS),
]


def _variables(count, offset=0):
    """`count` variables of the eight shapes, made larger by `offset`."""
    rng = np.random.default_rng(0)
    shapes = [tuple(n + offset for n in shape) for shape in SHAPES]
    return [
        keras.Variable(
            rng.normal(size=shapes[i % 8]).astype("float32"), name=f"v{i}"
        )
        for i in range(count)
    ]


def _make(name, momentum=0.9, **arguments):
    if name == "LAMB":
        return tf_lamb.LAMB(beta_1=momentum, **arguments)
    form = name.split("-")[1]
    if form.endswith("unit"):
        arguments["clip_by_unit"] = 0.1
        form = "lans" if form == "lans_unit" else "paper"
    if name == "LARS-unit":
        return tf_lamb.LARS(momentum=momentum, **arguments)
    if form == "cautious":
        return tf_lamb.LAMB(cautious=True, beta_1=momentum, **arguments)
    if name.startswith("LAMB"):
        return tf_lamb.LAMB(form=form, beta_1=momentum, **arguments)
    return tf_lamb.LARS(form=form, momentum=momentum, **arguments)


@pytest.mark.parametrize(
    "name, count", [(name, 400 if name == "LAMB" else 40) for name in FORMS]
)
def test_as_many_traces_as_signatures_not_variables(name, count):
    variables = _variables(count, offset=FORMS.index(name) + 1)
    # Kernels are shared in a process; no other test has this momentum.
    arguments = {"momentum": 0.87, "weight_decay": 0.1}
    excluded = dict.fromkeys(
        ("exclude_from_weight_decay", "exclude_from_layer_adaptation"), ["v1$"]
    )
    optimizer = _make(name, **excluded, **arguments)
    optimizer.build(variables)
    grads = [tf.ones_like(v) for v in variables]
    step = tf.function(lambda: optimizer.apply(grads))
    before = tf_update.trace_count()
    step()
    traced = tf_update.trace_count() - before
    # Eight shapes, and one of them once more without decay and adaptation.
    assert traced == 9
    # Rate, decay and further steps change nothing.
    optimizer.learning_rate = 0.5
    step()
    optimizer.weight_decay = 0.3
    tf.function(lambda: optimizer.apply(grads))()
    assert tf_update.trace_count() - before == traced
    # Nor does a second optimizer with other variables of the same shapes.
    other = _make(name, **arguments)
    other.apply(grads, _variables(count, offset=FORMS.index(name) + 1))
    assert tf_update.trace_count() - before == traced


def test_one_kernel_for_each_signature_and_constants_of_groups():
    variables = _variables(40, offset=11)
    grads = [tf.ones_like(v) for v in variables]

    def traced(*groups):
        before = tf_update.trace_count()
        optimizer = tf_lamb.LAMB(beta_1=0.86, groups=list(groups))
        optimizer.apply(grads, variables)
        return tf_update.trace_count() - before

    assert traced() == 8
    # Rates and decays are inputs of the kernels of all.
    groups = [
        Group(f"^v{i}$", 0.9**i, weight_decay=0.01 * i) for i in range(24)
    ]
    assert traced(*groups) == 0
    # Five variables of each shape, three of them with a constant of their own.
    assert traced(Group(r"^v(\d|1\d|2[0-3])$", beta_1=0.8)) == 8
    assert traced(Group(r"^v[0-7]$", 0.5, trust_ratio_per="filter")) == 4
    # One program for the two variables of each layer, 4 layers of one shape.
    named = [
        keras.Variable(np.ones(shape, "float32"), name=f"dense_{i}{j}")
        for i in range(4)
        for j, shape in enumerate([(6, 31), (31,)])
    ]
    for variable in named:
        variable._path = f"{variable.path[:-1]}/{variable.path[-1]}"
    before = tf_update.trace_count()
    joined = tf_lamb.LAMB(groups=[Group("", trust_ratio_per="layer")])
    joined.apply([tf.ones_like(v) for v in named], named)
    assert tf_update.trace_count() - before == 1


def test_graph_operations_grow_slowly_with_the_number_of_variables():
    def operations(count):
        variables = _variables(count)
        optimizer = tf_lamb.LAMB()
        optimizer.build(variables)
        grads = [tf.TensorSpec(v.shape) for v in variables]
        step = tf.function(lambda *g: optimizer.apply(g))
        return len(step.get_concrete_function(*grads).graph.get_operations())

    per_variable = (operations(80) - operations(40)) / 40
    # On 2026-11-26: 4 inputs, the gradient's sum of squares, one kernel.
    assert per_variable <= 6


@pytest.mark.parametrize("name", FORMS)
def test_compiled_equals_uncompiled(name):
    results = []
    for jit_compile in (True, False):
        variables = _variables(8)
        optimizer = _make(
            name,
            learning_rate=0.1,
            weight_decay=0.1,
            jit_compile=jit_compile,
            global_clipnorm=1.0,
        )
        for _ in range(5):
            grads = [tf.cos(v.value * 7) for v in variables]
            optimizer.apply(grads, variables)
        results.append([v.numpy() for v in variables])
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_inside_a_train_step_that_is_compiled_as_a_whole():
    variables, others = _variables(8), _variables(8)
    a, b = tf_lamb.LAMB(0.1), tf_lamb.LAMB(0.1)
    a.build(variables)
    b.build(others)

    def step(optimizer, variables):
        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_sum(tf.sin(v.value)) for v in variables)
        raw = [v.value for v in variables]
        optimizer.apply(tape.gradient(loss, raw), variables)

    whole = tf.function(lambda: step(a, variables), jit_compile=True)
    plain = tf.function(lambda: step(b, others))
    for _ in range(4):
        whole()
        plain()
    for v, w in zip(variables, others):
        np.testing.assert_allclose(v.numpy(), w.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_sparse_gradients_equal_dense_ones(name):
    """Repeated rows are added up before the moments see them."""
    table = np.random.default_rng(0).normal(size=(10, 4)).astype("float32")
    rows = tf.constant([1, 3, 3, 3, 7])
    values = tf.random.stateless_normal((5, 4), [1, 2])
    sparse = tf.IndexedSlices(values, rows, tf.constant([10, 4]))
    results = []
    for gradient in (sparse, tf.math.unsorted_segment_sum(values, rows, 10)):
        variable = keras.Variable(table, name="table")
        optimizer = _make(name, learning_rate=0.1, global_clipnorm=0.5)
        for _ in range(3):
            optimizer.apply([gradient], [variable])
        results.append(variable.numpy())
    np.testing.assert_allclose(*results, rtol=1e-6)
    assert np.abs(results[0][3] - table[3]).min() > 0


def test_raw_tensorflow_variables():
    variable = tf.Variable(tf.ones((3,)), name="dense/kernel")
    optimizer = tf_lamb.LAMB(0.5, exclude_from_weight_decay=["kernel$"])
    optimizer.apply_gradients([(tf.ones((3,)), variable)])
    assert optimizer.treatments == {
        "dense/kernel": ("dense/kernel", False, False, None)
    }
    np.testing.assert_allclose(variable.numpy(), 0.5, rtol=1e-5)


def test_tensorflow_checkpoint_resumes_as_if_uninterrupted(tmp_path):
    def fresh():
        variables = _variables(8)
        optimizer = tf_lamb.LAMB(0.1, use_ema=True, weight_decay=0.1)
        optimizer.build(variables)
        checkpoint = tf.train.Checkpoint(
            variables=[v.value for v in variables], optimizer=optimizer
        )
        return variables, optimizer, checkpoint

    def train(variables, optimizer, steps):
        for step in steps:
            grads = [
                tf.random.stateless_normal(v.shape, [step, i])
                for i, v in enumerate(variables)
            ]
            optimizer.apply(grads, variables)

    variables, optimizer, checkpoint = fresh()
    train(variables, optimizer, range(5))
    bad = [tf.fill(v.shape, np.nan) for v in variables]
    optimizer.apply(bad, variables)
    path = checkpoint.save(tmp_path / "ckpt")
    train(variables, optimizer, range(5, 10))

    resumed, other, checkpoint = fresh()
    checkpoint.restore(path).assert_consumed()
    assert other.skipped_steps == 1
    train(resumed, other, range(5, 10))
    for a, b in zip(
        [*variables, *optimizer.variables], [*resumed, *other.variables]
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


# Larger than what is summed up at once, with rows left over.
LARGE = [(1000, 33), (3, 3, 64, 70), (17, 2000)]


@pytest.mark.parametrize("kind", arithmetic.NORMS)
@pytest.mark.parametrize("shape", [*LARGE, (512, 64), (30000,), (2, 20000)])
def test_norms_by_blocks_of_rows_are_norms(kind, shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    flat = x.astype("float64").ravel()
    order = {"l2": 2, "l1": 1, "linf": np.inf}[kind]
    for of_function in (True, False):

        @tf.function(jit_compile=True)
        def compiled(x, of_function=of_function):
            arguments = (tf.negative, (x,)) if of_function else ()
            return tf_update.norm_by_blocks(tf_ops, kind, -x, *arguments)

        expected = np.linalg.norm(flat, order)
        np.testing.assert_allclose(compiled(x), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name, kind",
    [
        (name, kind)
        for name in FORMS
        for kind in arithmetic.NORMS
        # The others are run with each norm.
        if kind == "l2" or name not in ("LAMB-lans", "LAMB-cautious", *UNITS)
    ],
)
def test_large_variables_compiled_equal_uncompiled(name, kind):
    results = []
    for jit_compile in (True, False):
        rng = np.random.default_rng(0)
        variables = [
            keras.Variable(rng.normal(size=s).astype("float32"), name=f"v{i}")
            for i, s in enumerate(LARGE)
        ]
        optimizer = _make(
            name,
            learning_rate=0.1,
            weight_decay=0.1,
            norm=kind,
            jit_compile=jit_compile,
        )
        for _ in range(3):
            grads = [tf.cos(v.value * 7) for v in variables]
            optimizer.apply(grads, variables)
        results.append([v.numpy() for v in variables])
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_what_was_read_before_an_update_stays(name):
    """In place is only what nobody else holds."""
    variable = keras.Variable(np.ones((200, 100), "float32"), name="w")
    optimizer = _make(name, learning_rate=0.5)
    optimizer.build([variable])
    held = tf.convert_to_tensor(variable.value)
    optimizer.apply([tf.ones((200, 100))], [variable])
    np.testing.assert_array_equal(held.numpy(), 1)

    @tf.function
    def step(grad):
        before = variable.value.read_value()
        optimizer.apply([grad], [variable])
        return before, variable.value.read_value()

    last = variable.numpy()
    before, after = step(tf.ones((200, 100)))
    np.testing.assert_array_equal(before, last)
    np.testing.assert_array_equal(after, variable.numpy())
    assert np.abs(after - last).min() > 0


@pytest.mark.parametrize("skip_nonfinite", [True, False])
@pytest.mark.parametrize("name", [*FORMS, "LAMB-lans_unit"])
def test_compiled_program_writes_each_variable_once(name, skip_nonfinite):
    """No copy, and no direction kept: XLA's loops of full size are counted."""
    variable = keras.Variable(np.ones((700, 300), "float32"), name="w")
    optimizer = _make(name, weight_decay=0.1, skip_nonfinite=skip_nonfinite)
    optimizer.build([variable])
    step = tf.function(lambda g: optimizer.apply([g]), jit_compile=True)
    text = step.experimental_get_compiler_ir(tf.ones((700, 300)))(
        stage="optimized_hlo"
    )
    entry = text[text.index("\nENTRY") :]
    results = re.findall(r"= f32\[700,300\]\S* (?!parameter)(\S+)\(", entry)
    # Parameter and moments; squares of the gradients, whose sum is asked for.
    expected = (3 if name.startswith("LAMB") else 2) + skip_nonfinite
    assert len(results) == expected, results
    assert set(results) == {"fusion"}
