"""Deep communicating agents: layers, losses and the copy task, small."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_models.common import weights
from official_models.nlp.summarization import (
    copy_task,
    dca,
    dca_inputs,
    dca_losses,
    inputs,
)
from official_models.nlp.summarization.config import AgentsConfig
from official_models.nlp.summarization.dca_layers import messages, mixture

V, EXTRA, H, D, TOKENS = 12, 3, 6, 5, 5
UNKNOWN = 3


def small(seed=1, **changes):
    """A network with weights large enough that its outputs differ."""
    config = AgentsConfig(
        **{
            **{"vocab_size": V, "hidden_size": H, "embedding_size": D},
            **{"extra_size": EXTRA, "unknown_id": UNKNOWN},
            **{"contextual_layers": 2, "initializer_range": 0.7},
            **changes,
        }
    )
    model = dca.communicating_agents(config, seed=seed)
    return model, model.get_layer(dca.AGENTS)


def source(agents, lengths=(5, 3, 4), number=2, seed=0):
    """Random documents with words beyond the vocabulary, padded."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(4, V + EXTRA, (number, agents, TOKENS))
    ids[:, 0, 1] = V + 1
    mask = np.arange(TOKENS) < np.array(lengths[:agents])[:, None]
    mask = np.broadcast_to(mask, ids.shape).astype("int32")
    return (ids * mask).astype("int32"), mask


TARGET = np.array([[1, 5, V + 1, 7], [1, 9, 6, 3]], "int32")


def step_of(layer, ids, mask, target=TARGET):
    """`Step` of a network, as NumPy arrays."""
    step = layer.advance(target, None, layer.memory(ids, mask))
    return keras.tree.map_structure(np.asarray, step)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "caa"])
def three(request):
    return small(caa=request.param)


@pytest.mark.parametrize("lengths", [(5, 3, 4), (5, 2, 0)])
def test_p_sums_to_1_and_what_is_unknown_is_copied(three, lengths):
    ids, mask = source(3, lengths)
    step = step_of(three[1], ids, mask)
    np.testing.assert_allclose(step.p.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(step.p_voc.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(step.agents.sum(-1), 1, atol=1e-5)
    copied = (step.agents * (1 - step.switch))[..., None] * step.attention
    unknown = (ids >= V)[:, None]
    mass = (copied * unknown).sum((-1, -2))
    np.testing.assert_allclose(step.p[..., V:].sum(-1), mass, atol=1e-6)
    assert mass.min() > 1e-3
    if not lengths[2]:
        assert (step.agents[..., 2] == 0).all()


def test_the_mixture_by_its_formula():
    rng = np.random.default_rng(0)
    b, length, m = 2, 3, 2
    p_voc = rng.dirichlet(np.ones(V), (b, length))
    attention = rng.dirichlet(np.ones(TOKENS), (b, length, m))
    agents = rng.dirichlet(np.ones(m), (b, length))
    switch = rng.uniform(size=(b, length, m))
    ids = rng.integers(0, V + EXTRA, (b, m, TOKENS))
    ids[:, :, :3] = V  # several times
    wanted = np.zeros((b, length, V + EXTRA))
    for x, t, a in itertools.product(range(b), range(length), range(m)):
        g, p = agents[x, t, a], switch[x, t, a]
        wanted[x, t, :V] += g * p * p_voc[x, t]
        for i in range(TOKENS):
            w = ids[x, a, i]
            wanted[x, t, w] += g * (1 - p) * attention[x, t, a, i]
    parts = (p_voc, attention, agents * switch, agents * (1 - switch))
    given = [x.astype("float32") for x in parts]
    found = mixture(*given, ids, V + EXTRA)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    given[2:] = agents.astype("float32"), np.zeros_like(given[3])
    # p_a = 1: P = P_voc
    found = np.asarray(mixture(*given, ids, V + EXTRA))
    np.testing.assert_allclose(found[..., :V], p_voc, atol=1e-6)
    assert (found[..., V:] == 0).all()


def test_a_switch_that_is_nearly_closed_still_learns():
    _, layer = small(agents=1, contextual_layers=0)
    ids, mask = source(1, (TOKENS,))
    switch = layer.switch
    for weight in (switch.context, switch.state, switch.word):
        weight.assign(np.zeros(weight.shape))
    vector = layer.embed(TARGET[:1, :1])[0, 0]
    # A logit of 40, whose sigmoid is 1 in float32.
    switch.word.assign(40 * vector / np.sum(np.square(vector)))
    with tf.GradientTape() as tape:
        memory = layer.memory(ids[:1], mask[:1])
        step = layer.advance(TARGET[:1, :1], None, memory)
        loss = dca_losses.mle(
            dca.log_of(step.p), np.array([[V + 1]]), np.ones((1, 1))
        )
    assert float(step.switch[0, 0, 0]) == 1 and 40 < float(loss) < 60
    gradient = tape.gradient(loss, switch.word.value)
    np.testing.assert_allclose(gradient, vector, atol=1e-5)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, kernel, recurrent, bias, hidden, cell):
    """States of Keras' LSTM, gates in the order i, f, c, o."""
    found = []
    for one in x:
        i, f, c, o = np.split(one @ kernel + hidden @ recurrent + bias, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(cell)
        found.append(hidden)
    return np.array(found)


def test_one_agent_is_the_pointer_generator():
    """That of See, Liu, Manning 2017 (arXiv:1704.04368), in NumPy.

    Without coverage, with this network's MLP, and no bias in its switch.
    """
    model, layer = small(agents=1, contextual_layers=0)
    ids, mask = source(1, (TOKENS,))
    step = step_of(layer, ids, mask)
    w = {k[4:]: np.asarray(v) for k, v in weights.by_path(model).items()}

    def cell(name):
        names = ("kernel", "recurrent_kernel", "bias")
        return [w[f"{name}/lstm_cell/{x}"] for x in names]

    words = w["word_embeddings"]
    known = np.where(ids < V, ids, UNKNOWN)
    zero = np.zeros(H)
    for b in range(2):
        x = words[known[b, 0]]
        ahead = lstm(x, *cell("local/forward"), zero, zero)
        back = lstm(x[::-1], *cell("local/backward"), zero, zero)[::-1]
        h = np.hstack([ahead, back]) @ w["local/output/kernel"]
        h = h + w["local/output/bias"]
        y = words[np.where(TARGET[b] < V, TARGET[b], UNKNOWN)]
        s = lstm(y, *cell("decoder"), h[-1], zero)
        key = h @ w["word_attention/key/kernel"] + w["word_attention/key/bias"]
        query = s @ w["word_attention/query"]
        e = np.tanh(key + query[:, None]) @ w["word_attention/score"]
        a = softmax(e)
        context = a @ h
        inner = np.hstack([s, context]) @ w["vocabulary/inner/kernel"]
        inner = np.tanh(inner + w["vocabulary/inner/bias"])
        p_voc = softmax(
            inner @ w["vocabulary/outer/kernel"] + w["vocabulary/outer/bias"]
        )
        p_gen = sigmoid(
            context @ w["switch/context"]
            + s @ w["switch/state"]
            + y @ w["switch/word"]
        )[:, None]
        p = np.pad(p_gen * p_voc, ((0, 0), (0, EXTRA)))
        for i, word in enumerate(ids[b, 0]):
            p[:, word] += (1 - p_gen[:, 0]) * a[:, i]
        np.testing.assert_allclose(step.states[b], s, atol=1e-5)
        np.testing.assert_allclose(step.p[b], p, atol=1e-5)
    assert (step.agents == 1).all()


def test_messages_by_their_formula():
    rng = np.random.default_rng(0)
    lengths = (5, 2, 4, 0)
    states = rng.normal(size=(2, 4, TOKENS, H)).astype("float32")
    mask = (np.arange(TOKENS) < np.array(lengths)[:, None]).astype("int32")
    mask = np.stack([mask, mask])
    z = np.asarray(messages(states, mask))
    last = {a: states[:, a, n - 1] for a, n in enumerate(lengths) if n}
    for a in range(4):
        others = [last[m] for m in last if m != a]
        np.testing.assert_allclose(z[:, a], np.mean(others, 0), atol=1e-6)
    order = [0, 2, 3, 1]  # of the others of agent 1
    permuted = np.asarray(messages(states[:, order], mask[:, order]))
    np.testing.assert_allclose(permuted[:, 0], z[:, 0], atol=1e-6)
    assert (np.asarray(messages(states[:, :1], mask[:, :1])) == 0).all()
    empty = [0, 3]  # nothing to hear from an empty part
    z = np.asarray(messages(states[:, empty], mask[:, empty]))
    assert (z[:, 0] == 0).all()


def test_the_order_of_the_other_agents(three):
    ids, mask = source(3)
    step = step_of(three[1], ids, mask)
    order = [0, 2, 1]
    other = step_of(three[1], ids[:, order], mask[:, order])
    np.testing.assert_allclose(other.p, step.p, atol=1e-5)
    np.testing.assert_allclose(other.agents, step.agents[..., order], atol=1e-5)
    np.testing.assert_allclose(
        other.attention, step.attention[:, :, order], atol=1e-5
    )
    assert np.abs(step.agents[..., 1] - step.agents[..., 2]).max() > 1e-2


def test_communication_is_what_agent_1_knows_of_the_last():
    moved = {}
    for communicate in (True, False):
        _, layer = small(communicate=communicate)
        ids, mask = source(3)
        one = step_of(layer, ids, mask).attention[:, :, 0]
        ids[:, 2, 0] = 4 + (ids[:, 2, 0] - 3) % (V - 4)
        other = step_of(layer, ids, mask).attention[:, :, 0]
        moved[communicate] = np.abs(one - other).max()
    assert moved[False] == 0 and moved[True] > 1e-3
    # The parameters are as many.
    counts = {small(communicate=x)[0].count_params() for x in (True, False)}
    assert len(counts) == 1


def test_padding_changes_nothing(three):
    ids, mask = source(3)
    step = step_of(three[1], ids, mask)
    pad = ((0, 0), (0, 0), (0, 3))
    more = step_of(three[1], np.pad(ids, pad), np.pad(mask, pad))
    np.testing.assert_allclose(more.p, step.p, atol=1e-5)


def test_a_token_at_a_time(three):
    ids, mask = source(3)
    model, layer = three
    batch = {"input_ids": ids, "input_mask": mask, "target_ids": TARGET}
    whole = {name: np.asarray(x) for name, x in model(batch).items()}
    memory, state = layer.memory(ids, mask), None
    for t in range(TARGET.shape[1]):
        step = layer.advance(TARGET[:, t : t + 1], state, memory)
        state = step.state
        log_p = np.asarray(dca.log_of(step.p))[:, 0]
        np.testing.assert_allclose(log_p, whole["log_p"][:, t], atol=1e-4)
        np.testing.assert_allclose(
            step.states[:, 0], whole["states"][:, t], atol=1e-5
        )


def test_caa_knows_the_context_before():
    _, layer = small(caa=True)
    ids, mask = source(3)
    memory = layer.memory(ids, mask)
    zero = dca.State(memory.first, *[np.zeros((2, H), "float32")] * 2)
    other = zero._replace(context=np.ones((2, H), "float32"))
    found = [
        np.asarray(layer.advance(TARGET[:, :1], state, memory).p_voc)
        for state in (zero, other)
    ]
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_a_network_is_saved_and_seeded(three, tmp_path):
    model, layer = three
    model.save(tmp_path / "model.keras")
    again = weights.read_keras(tmp_path / "model.keras", "here")
    ids, mask = source(3)
    batch = {"input_ids": ids, "input_mask": mask, "target_ids": TARGET}
    found, other = model(batch), again(batch)
    np.testing.assert_array_equal(found["log_p"], other["log_p"])
    same, _ = small(caa=layer.config.caa)
    np.testing.assert_array_equal(same(batch)["log_p"], found["log_p"])
    paths = weights.by_path(model)
    kernels = [
        np.asarray(paths[f"dca/local/{x}/lstm_cell/kernel"])
        for x in ("forward", "backward")
    ]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-2


@pytest.mark.parametrize(
    "changes",
    [{"agents": 0}, {"contextual_layers": -1}, {"unknown_id": V}],
)
def test_configurations_that_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        small(**changes)


def test_cross_entropy_over_the_extended_vocabulary():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(V + EXTRA), (2, 4)).astype("float32")
    labels = np.array([[V + 2, 3, 0, 0], [1, 2, V, 5]])
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    wanted = -np.mean(
        [np.log(p[b, t, labels[b, t]]) for b, t in np.argwhere(mask)]
    )
    log_p = dca.log_of(p)
    assert float(dca_losses.mle(log_p, labels, mask)) == pytest.approx(wanted)
    loss = dca_losses.ExtendedCrossEntropy()
    found = loss(labels, log_p, sample_weight=mask.astype("float32"))
    assert float(found) == pytest.approx(wanted)
    assert np.isfinite(dca.log_of(np.zeros(1, "float32"))).all()


def test_cohesion_by_its_formula():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(2, 7, H)).astype("float32")
    ends = np.array([[0, 1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0]])
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    wanted = unit[0, 1] @ unit[0, 3] + unit[0, 3] @ unit[0, 4]
    found = dca_losses.cohesion(states, ends)
    np.testing.assert_allclose(found, [wanted, 0], atol=1e-6)
    loss = dca_losses.SemanticCohesion()(ends, states)
    assert float(loss) == pytest.approx(wanted / 2, abs=1e-6)
    # States of zero, and no end: finite, and so is the gradient.
    x = tf.Variable(np.zeros((1, 3, H), "float32"))
    with tf.GradientTape() as tape:
        y = dca_losses.cohesion(x, np.ones((1, 3)))
    assert np.isfinite(tape.gradient(y, x)).all() and float(y[0]) == 0


def test_intermediate_rewards_telescope():
    rewards = np.array([[0.2, 0.1, 0.7], [0.5, 0.5, 0.5]], "float32")
    found = dca_losses.intermediate_rewards(rewards)
    np.testing.assert_allclose(
        found, [[0.2, -0.1, 0.6], [0.5, 0, 0]], atol=1e-6
    )
    np.testing.assert_allclose(np.sum(found, 1), rewards[:, -1], atol=1e-6)
    sentences = np.array([[0, 0, 1, 2], [0, 1, 1, 1]])
    to_come = dca_losses.rewards_to_come(found, sentences)
    wanted = [[0.7, 0.7, 0.5, 0.6], [0.5, 0, 0, 0]]
    np.testing.assert_allclose(to_come, wanted, atol=1e-6)


class Tabular:
    """Two tokens of 3 words: P(y1) P(y2 | y1), by tables of logits."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.first = tf.Variable(rng.normal(size=3))
        self.second = tf.Variable(rng.normal(size=(3, 3)))
        # r(s_1), r(s_1..2) of each: a token is a sentence here.
        self.r_1 = rng.uniform(size=3)
        self.r_2 = rng.uniform(size=(3, 3))

    def log_p(self, first):
        rows = [self.first, self.second[first]]
        return tf.nn.log_softmax(tf.stack(rows))[None]  # [1, 2, 3]

    def rewards(self, pair):
        return np.array([[self.r_1[pair[0]], self.r_2[pair]]])

    @property
    def variables(self):
        return [self.first, self.second]

    def greedy(self):
        first = int(np.argmax(self.first))
        return first, int(np.argmax(self.second[first]))


def self_critical_of(policy, pair, by_sentence):
    """The loss of one sample, [1] rewards or by token."""
    rewards = [policy.rewards(x) for x in (pair, policy.greedy())]
    if by_sentence:
        rewards = [
            dca_losses.rewards_to_come(
                dca_losses.intermediate_rewards(r), np.array([[0, 1]])
            )
            for r in rewards
        ]
    else:
        rewards = [r[:, -1] for r in rewards]
    return dca_losses.self_critical(
        policy.log_p(pair[0]), np.array([pair]), np.ones((1, 2)), *rewards
    )


@pytest.mark.parametrize("by_sentence", [False, True])
def test_the_expected_self_critical_gradient_is_exact(by_sentence):
    policy = Tabular()
    expected = [np.zeros(v.shape) for v in policy.variables]
    with tf.GradientTape() as tape:
        value = 0.0
        for pair in itertools.product(range(3), range(3)):
            log_p = policy.log_p(pair[0])[0]
            p = tf.exp(log_p[0, pair[0]] + log_p[1, pair[1]])
            value += p * policy.r_2[pair]
        loss = -value
    exact = [
        np.asarray(tf.convert_to_tensor(g))
        for g in tape.gradient(loss, policy.variables)
    ]
    for pair in itertools.product(range(3), range(3)):
        log_p = np.asarray(policy.log_p(pair[0])[0])
        p = np.exp(log_p[0, pair[0]] + log_p[1, pair[1]])
        with tf.GradientTape() as tape:
            loss = self_critical_of(policy, pair, by_sentence)
        for total, part in zip(
            expected, tape.gradient(loss, policy.variables), strict=True
        ):
            total += p * np.asarray(tf.convert_to_tensor(part))
    for one, other in zip(expected, exact, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
        assert np.abs(one).max() > 1e-3


@pytest.mark.parametrize("by_sentence", [False, True])
def test_a_greedy_sample_teaches_nothing(by_sentence):
    policy = Tabular()
    pair = policy.greedy()
    others = [p for p in itertools.product(range(3), range(3)) if p != pair]
    for sample in (pair, others[0]):
        with tf.GradientTape() as tape:
            loss = self_critical_of(policy, sample, by_sentence)
        gradients = tape.gradient(loss, policy.variables)
        zero = all(
            (np.asarray(tf.convert_to_tensor(g)) == 0).all() for g in gradients
        )
        assert zero == (sample == pair)


def test_what_follows_the_end_of_a_sample_does_not_count():
    log_p = np.log(np.full((1, 2, 4), 0.25))
    found = dca_losses.self_critical(
        log_p, np.zeros((1, 2)), np.array([[1, 0]]), np.ones(1), np.zeros(1)
    )
    assert float(found) == pytest.approx(-np.log(0.25))  # (0 - 1) log P


def test_mixed_losses():
    assert dca_losses.mixed(2.0, 3.0) == pytest.approx(0.97 * 2 + 0.03 * 3)
    assert dca_losses.mixed(2.0, 3.0, 0) == 3 and (
        dca_losses.mixed(2.0, 3.0, 1) == 2
    )
    with pytest.raises(ValueError, match="gamma"):
        dca_losses.mixed(1.0, 1.0, 1.5)


def test_a_rewards_scale_does_not_reach_lambs_step():
    """What README.md says of RL and the trust ratio."""
    import tf_lamb

    found = {}
    for scale in (1.0, 1e-3):
        policy = Tabular()
        optimizer = tf_lamb.LAMB(0.1, weight_decay=0.0, epsilon=1e-15)
        pair = (policy.greedy()[0], (policy.greedy()[1] + 1) % 3)
        for _ in range(3):
            with tf.GradientTape() as tape:
                loss = scale * self_critical_of(policy, pair, False)
            gradients = tape.gradient(loss, policy.variables)
            gradients = [tf.convert_to_tensor(g) for g in gradients]
            optimizer.apply(gradients, policy.variables)
        found[scale] = [np.asarray(v) for v in policy.variables]
    for one, other in zip(found[1.0], found[1e-3], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(found[1.0][0] - np.asarray(Tabular().first)).max() > 1e-2


@pytest.mark.parametrize(
    ("clss", "length", "wanted"),
    [
        ([0, 3, 6], 9, [3, 3, 3]),
        ([0, 2, 4, 6], 12, [4, 8, 0]),  # sentences belong where they begin
        ([0], 7, [7, 0, 0]),
        ([0, 8], 9, [8, 0, 1]),
    ],
)
def test_parts_of_a_document(clss, length, wanted):
    row = inputs.Encoded(
        *(np.arange(length), np.zeros(length), np.array(clss)),
        *(np.zeros(1), np.array([1, 7, 3, 8, 2])),
    )
    found = dca_inputs.parts(row, 3)
    assert [len(part) for part in found] == wanted
    np.testing.assert_array_equal(np.concatenate(found), row.input_ids)


def test_batches_for_agents():
    ids = np.arange(10, 19)
    long = inputs.Encoded(
        *(ids, 0 * ids, np.array([0, 3, 6])),
        *(np.zeros(3), np.array([1, 7, 3, 8, 2])),
    )
    short = long._replace(
        input_ids=ids[:4], clss=np.array([0]), target=np.array([1, 9, 2])
    )
    form = dca_inputs.AgentForm(3, inputs.Marks(1, 2, 3))
    x, labels, weight = form.batch([long, short])
    assert x["input_ids"][0].tolist() == [
        *([10, 11, 12, 0], [13, 14, 15, 0], [16, 17, 18, 0])
    ]
    assert x["input_mask"].sum(-1).tolist() == [[3, 3, 3], [4, 0, 0]]
    assert x["target_ids"].tolist() == [[1, 7, 3, 8], [1, 9, 0, 0]]
    assert labels["log_p"].tolist() == [[7, 3, 8, 2], [9, 2, 0, 0]]
    assert labels["states"].tolist() == [[0, 1, 0, 1], [0, 1, 0, 0]]
    assert weight["log_p"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert weight["states"].tolist() == [1, 1]
    for given, spec in zip((x, labels, weight), form.signature(), strict=True):
        assert set(given) == set(spec)
        for name, array in given.items():
            assert spec[name].dtype == array.dtype
            assert spec[name].shape.rank == array.ndim


def test_the_copy_task():
    rng = np.random.default_rng(0)
    inputs, labels = copy_task.draw(rng, 200, agents=4, pairs=3, keys=5)
    ids, v = inputs["input_ids"], copy_task.vocab_size(5)
    assert ids.shape == (200, 4, 6) and inputs["input_mask"].all()
    places = []
    for one, target, label in zip(
        ids, inputs["target_ids"], labels, strict=True
    ):
        pairs = dict(one[0].reshape(3, 2))
        assert len(pairs) == 3 and set(pairs.values()) == {v, v + 1, v + 2}
        (key,) = set(one[3]) & set(pairs)
        assert label.tolist() == [pairs[key], copy_task.END]
        assert target.tolist() == [copy_task.BEGIN, pairs[key]]
        # No other agent knows a key or a value.
        assert not set(one[1:3].ravel()) & (set(range(4, 9)) | {*pairs})
        places.append(list(pairs).index(key))
        assert one[1:].max() < v
    # No place among the pairs, and no value, is more frequent.
    for counts in (np.bincount(places), np.bincount(labels[:, 0] - v)):
        assert counts.min() > 45
    with pytest.raises(ValueError, match="keys"):
        copy_task.draw(rng, 1, pairs=4, keys=3)
