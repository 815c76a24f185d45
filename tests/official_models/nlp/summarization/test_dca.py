"""Deep communicating agents: their layers and network, small."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_models.common import weights
from official_models.nlp.summarization import (
    dca,
    dca_losses,
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
