"""The networks, their training, and the scikit-learn transformer."""

import copy
from unittest import SkipTest

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse
from sklearn.utils.estimator_checks import estimator_checks_generator

from official_models.nlp.term_weighting import (
    learning,
    metrics,
    model,
    statistics,
    weighting,
)
from official_models.nlp.term_weighting.learning import Documents, Settings
from official_models.nlp.term_weighting.transformer import LearnedTermWeighting

RNG = np.random.default_rng(0)
LABELS = np.arange(40) % 4 == 0
COUNTS = RNG.poisson(1.0, (40, 7)).astype(float)
COUNTS[:, 2] = 3.0 * LABELS  # one term tells them apart
COUNTS[:, 6] += 1
SHARES = weighting.shares(COUNTS)
TABLE = statistics.table(COUNTS, LABELS)
BOTH = Documents(SHARES, LABELS)
SMALL = {"hidden": 4, "max_steps": 4, "validate_every": 2, "batch_size": 8}


@pytest.fixture(scope="module", autouse=True)
def eager():
    """Without tracing: each of many small networks is trained a few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def made(kind="local", output="identity", terms=7, **more):
    more = {"hidden": 5, "dropout": 0.0, **more}
    found = model.make(terms, seed=1, kind=kind, output=output, **more)
    layer = found.get_layer("weighting")
    layer.rates.assign(TABLE.rates[:terms])
    return found, layer


@pytest.mark.parametrize("learn_tf", [False, True])
@pytest.mark.parametrize("kind", model.KINDS)
def test_a_vector_is_the_product_at_length_one(kind, learn_tf):
    _, layer = made(kind, learn_tf=learn_tf)
    x = SHARES.toarray().astype("float32")
    w = np.asarray(layer.term_weights(False))
    assert w.shape == (7,)
    frequency = np.asarray(layer.term_frequency(x))
    if not learn_tf:
        np.testing.assert_allclose(frequency, np.log1p(x), rtol=1e-5)
    assert (frequency[x == 0] == 0).all()  # a term that is absent has none
    expected = frequency * w
    expected /= np.linalg.norm(expected, axis=1, keepdims=True) + 1e-30
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)
    assert not np.asarray(layer(0 * x)).any()


def test_saved_and_loaded(tmp_path):
    found, _ = made("global", learn_tf=True)
    found.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    x = SHARES.toarray().astype("float32")
    np.testing.assert_array_equal(loaded(x), found(x))


def test_the_sizes_of_the_networks():
    _, local = made("local")
    assert [w.shape for w in local.net.weights] == [(2, 5), (5,), (5, 1), (1,)]
    _, whole = made("global")
    assert [w.shape for w in whole.net.weights] == [
        *((14, 3), (3,)),
        *((3, 7), (7,)),
    ]
    _, sigmoid = made(output="sigmoid")
    w = np.asarray(sigmoid.term_weights(False))
    assert ((0 < w) & (w < 1)).all()


def test_a_batch_needs_the_weights_of_its_own_terms_alone():
    """The loss and every gradient are those of all terms."""
    found, layer = made()
    x = SHARES.toarray().astype("float32")[:6]
    x[:, [1, 4]] = 0
    present = learning.present_terms(x)
    assert present[:5].tolist() == [0, 2, 3, 5, 6] and (present[5:] == 7).all()
    assert len(present) == 256
    few = np.asarray(layer.term_weights(False, present))
    every = np.asarray(layer.term_weights(False))
    assert not few[[1, 4]].any() and every[[1, 4]].all()
    labels = LABELS[:6, None].astype("float32")
    variables = [v.value for v in found.trainable_variables]
    gradients = []
    for one, inputs in (
        (found, x),
        (model.of_present_terms(found), [x, present]),
    ):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                keras.losses.binary_crossentropy(
                    labels, one(inputs), from_logits=True
                )
            )
        gradients.append([loss, *tape.gradient(loss, variables)])
    for one, other in zip(*gradients):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert learning.present_terms(0 * x).tolist() == [7] * 256


@pytest.mark.parametrize("kind", model.KINDS)
def test_a_training_step_gives_a_local_network_the_present_terms(
    kind, monkeypatch
):
    rows = []
    plain = keras.layers.Dense.call

    def recorded(self, x, *args, **kwargs):
        if self.name == "hidden" and not isinstance(x, keras.KerasTensor):
            rows.append(x.shape)
        return plain(self, x, *args, **kwargs)

    found, _ = made(kind)
    step = learning.make_step(Settings(kind=kind), found)
    monkeypatch.setattr(keras.layers.Dense, "call", recorded)
    before = [np.asarray(w) for w in found.trainable_variables]
    step(SHARES.toarray().astype("float32"), LABELS[:, None].astype("float32"))
    assert rows == [(256, 2) if kind == "local" else (1, 14)]
    after = [np.asarray(w) for w in found.trainable_variables]
    assert all((a != b).any() for a, b in zip(before, after) if b.any())


def test_permuting_terms_permutes_the_local_networks_weights():
    order = np.array([3, 1, 0, 2, 6, 5, 4])
    for kind, same in (("local", True), ("global", False)):
        found, layer = made(kind)
        x = SHARES.toarray().astype("float32")
        one, v = np.asarray(layer.term_weights(False)), np.asarray(layer(x))
        layer.rates.assign(TABLE.rates[order])
        other = np.asarray(layer.term_weights(False))
        assert np.allclose(one[order], other, atol=1e-6) == same
        if same:
            moved = np.asarray(layer(x[:, order]))
            np.testing.assert_allclose(moved, v[:, order], atol=1e-6)


def test_the_last_layers_gradient_is_orthogonal_to_it():
    """Vectors have length 1, so a factor of w changes nothing."""
    x = SHARES.toarray().astype("float32")
    sums = {}
    for output in model.OUTPUTS:
        found, layer = made(output=output)
        with tf.GradientTape() as tape:
            loss = keras.losses.binary_crossentropy(
                LABELS[:, None].astype("float32"), found(x), from_logits=True
            )
            loss = tf.reduce_mean(loss)
        last = layer.net.layers[-1]
        variables = [last.kernel, last.bias]
        gradients = tape.gradient(loss, [v.value for v in variables])
        sums[output] = sum(
            float(np.sum(np.asarray(v) * np.asarray(g)))
            for v, g in zip(variables, gradients)
        )
    assert abs(sums["identity"]) < 1e-6
    assert abs(sums["sigmoid"]) > 1e-5  # no such factor there


@pytest.mark.parametrize("kind", model.KINDS)
def test_pretraining_learns_the_function(kind):
    tf.config.run_functions_eagerly(False)  # of many steps of one network
    _, layer = made(kind, "sigmoid", hidden=64)
    target = statistics.information_gain(TABLE)
    expected = target / target.max()

    def error():
        w = np.asarray(layer.term_weights(False))
        return ((w - expected) ** 2).mean()

    before = error()
    last = learning.pretrain(layer, target, 60)
    assert error() < before / 2
    assert last < before
    w = np.asarray(layer.term_weights(False))
    assert w.argmax() == expected.argmax() == 2
    tf.config.run_functions_eagerly(True)


@pytest.mark.parametrize("optimizer", learning.OPTIMIZERS)
def test_a_training_finds_the_term_that_tells_them_apart(optimizer):
    settings = Settings(
        hidden=8, dropout=0.0, optimizer=optimizer, max_steps=40,
        validate_every=20, batch_size=-1,
        learning_rate={"lamb": 0.01}.get(optimizer),
    )  # fmt: skip
    found = learning.fit(settings, BOTH, BOTH, TABLE, 0)
    assert found.steps <= 40 and found.weights.shape == (7,)
    if optimizer != "lars":  # whose rate is no matter of this task
        assert found.f1 > 0.7
        assert found.weights.argmax() == 2  # the sum is not below 0
    if optimizer == "adam":
        again = learning.fit(settings, BOTH, BOTH, TABLE, 0)
        np.testing.assert_array_equal(again.weights, found.weights)


def test_a_start_with_f1_of_0_is_followed_by_another(monkeypatch):
    seeds, f1 = [], iter([0.0, 0.0, 0.0, 0.5, 0.2, 0.0])
    plain = learning.make_model

    def recorded(settings, table, seed):
        seeds.append(seed)
        return plain(settings, table, seed)

    monkeypatch.setattr(learning, "make_model", recorded)
    monkeypatch.setattr(
        learning.metrics,
        "count",
        lambda *_: type("", (), {"f1": next(f1)}),
    )
    settings = Settings(
        hidden=2, max_steps=100, validate_every=1, patience=1, batch_size=8
    )
    found = learning.fit(settings, BOTH, BOTH, TABLE, 3)
    # Twice a first validation of 0 and a second that is no better; then one.
    assert found.restarts == 1 and found.f1 == 0.5
    assert len(set(seeds)) == 2 and found.steps == 5

    f1 = iter([0.0] * 100)
    late = Settings(
        hidden=2, max_steps=100, validate_every=1, patience=1, batch_size=8,
        restart_before=4,
    )  # fmt: skip
    found = learning.fit(late, BOTH, BOTH, TABLE, 3)
    assert found.steps == 4 and found.restarts == 1 and found.f1 == 0
    f1 = iter([0.0] * 100)
    short = Settings(
        hidden=2, max_steps=3, validate_every=1, patience=1, batch_size=8
    )
    assert learning.fit(short, BOTH, BOTH, TABLE, 3).steps == 3


def test_settings_out_of_range():
    for name, value in (
        ("kind", "x"),
        ("output", "relu"),
        ("optimizer", "sgd"),
        ("pretrain", "idf"),
        ("batch_size", 0),
        ("max_steps", 0),
        ("learning_rate", -1.0),
        ("dropout", 2.0),
    ):
        with pytest.raises(ValueError, match=name):
            Settings(**{name: value})


@pytest.mark.parametrize("learn_tf", [False, True])
def test_transform_is_what_the_network_computes(learn_tf, monkeypatch):
    networks = []
    plain = learning.make_model

    def kept(*args):
        networks.append(plain(*args))
        return networks[-1]

    monkeypatch.setattr(learning, "make_model", kept)
    learner = LearnedTermWeighting(
        **SMALL, learn_tf=learn_tf, random_state=0, restart_before=0
    )
    names = np.where(LABELS, "yes", "no")
    found = learner.fit_transform(COUNTS, names)
    layer = networks[-1].get_layer("weighting")
    expected = layer(SHARES.toarray().astype("float32"), training=False)
    sign = np.sign(np.asarray(layer.term_weights(False)).sum())
    np.testing.assert_allclose(found, sign * np.asarray(expected), atol=1e-5)
    as_sparse = learner.transform(sparse.csr_matrix(COUNTS))
    assert sparse.issparse(as_sparse)
    np.testing.assert_allclose(as_sparse.toarray(), found, atol=1e-12)
    assert learner.classes_.tolist() == ["no", "yes"]
    assert learner.n_steps_ == 4
    # Nothing of Keras is in it.
    again = copy.deepcopy(learner)
    np.testing.assert_array_equal(again.transform(COUNTS), found)


def test_the_statistics_are_of_the_part_that_is_not_validated_on(monkeypatch):
    seen = []
    plain = learning.fit

    def recorded(settings, train, validation, table, seed):
        seen.append((len(train.labels), len(validation.labels), table))
        return plain(settings, train, validation, table, seed)

    monkeypatch.setattr(learning, "fit", recorded)
    LearnedTermWeighting(**SMALL, random_state=0).fit(COUNTS, LABELS)
    ((train, validation, table),) = seen
    assert (train, validation) == (32, 8)
    assert (table.documents == 32).all()


def test_scikit_learns_checks():
    learner = LearnedTermWeighting(
        hidden=2, max_steps=1, validate_every=1, restart_before=0,
        random_state=0, optimizer="adam",
    )  # fmt: skip
    count = skipped = 0
    for estimator, check in estimator_checks_generator(learner):
        try:
            check(estimator)
            count += 1
        except SkipTest:  # of an array library that is not switched on
            skipped += 1
    assert count > 40 and skipped <= 1


def test_bad_input_of_the_transformer():
    learner = LearnedTermWeighting(**SMALL)
    for x, y, words in (
        (-COUNTS, LABELS, "Negative"),
        (COUNTS, np.arange(40) % 3, "one transformer a category"),
        (COUNTS, np.zeros(40), "only one class"),
        (COUNTS, np.linspace(0, 1, 40), "Unknown label type"),
    ):
        with pytest.raises(ValueError, match=words):
            learner.fit(x, y)
    with pytest.raises(ValueError, match="validation_fraction"):
        LearnedTermWeighting(**SMALL, validation_fraction=1.0).fit(
            COUNTS, LABELS
        )
    assert metrics.count(LABELS, LABELS).f1 == 1
