"""Rewards, what is drawn, and updates of self-critical training, small."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tokenizers import Tokenizer, models

from official_models.nlp.summarization import dca, dca_losses, dca_rl
from official_models.nlp.summarization.config import AgentsConfig
from official_models.nlp.summarization.inputs import Encoding

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the film is good bad dull song"
).split()
PAD, UNK, BEGIN, END, BREAK = range(5)
THE, FILM, IS, GOOD, BAD, DULL, SONG = range(5, 12)
V = len(WORDS)


@pytest.fixture(scope="module")
def encoding():
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    word_level = models.WordLevel(vocabulary, unk_token="[UNK]")
    return Encoding(Tokenizer(word_level), 32, 6)


class Fixed:
    """A writer whose next token depends on nothing but the step.

    Args:
        tables: Probabilities of each step, [steps, V].
    """

    def __init__(self, tables):
        self._tables = np.asarray(tables, "float32")

    def start(self, inputs, beams):
        self._rows, self._at = len(inputs["input_ids"]) * beams, 0

    def step(self, tokens):
        assert len(tokens) == self._rows
        self._at += 1
        row = np.log(self._tables[self._at - 1] + 1e-37)
        return np.tile(row, (self._rows, 1))


def one_hot(token):
    return np.eye(V)[token]


def documents(number):
    return {"input_ids": np.ones((number, 2, 3), "int32")}


def test_what_is_drawn_has_the_probabilities_of_the_network(encoding):
    first = 0.5 * one_hot(GOOD) + 0.3 * one_hot(BAD) + 0.2 * one_hot(END)
    second = 0.6 * one_hot(END) + 0.4 * one_hot(DULL)
    writer = Fixed([first, second, one_hot(SONG)])
    rng = np.random.default_rng(0)
    n = 4000
    drawn, greedy = dca_rl.roll_out(
        writer, documents(n), encoding.marks, 3, rng
    )
    assert greedy == [[GOOD, END]] * n
    # Nothing follows the end; at the longest, there is none.
    assert {tuple(row) for row in drawn} == {
        (END,),
        *((x, END) for x in (GOOD, BAD)),
        *((x, DULL, SONG) for x in (GOOD, BAD)),
    }
    share = np.mean([row == [BAD, DULL, SONG] for row in drawn])
    assert share == pytest.approx(0.3 * 0.4, abs=0.02)  # 4 deviations


def test_rewards_are_rouge_of_the_first_sentences(encoding):
    rewards = dca_rl.Rewards(encoding, "rouge1")
    reference = [THE, FILM, IS, GOOD, END]
    found = rewards([THE, SONG, BREAK, FILM, END], reference)
    # "the song", "the song film": 2 x matches / (words + 4).
    np.testing.assert_allclose(found, [2 / 6, 4 / 7])
    assert rewards([END], reference) == [0.0]
    # A reference as long as a summary gives 1; a last break adds nothing.
    assert rewards(reference, reference) == [1.0]
    assert rewards([THE, BREAK, END], reference) == pytest.approx([0.4, 0.4])


def test_arrays_of_the_loss(encoding):
    rewards = dca_rl.Rewards(encoding, "rouge1")
    drawn = dca_rl.drawn_of(
        [[THE, BREAK, FILM, END], [BAD, END]],
        [[GOOD, END], [BAD, BREAK, BAD, BREAK, SONG, END]],
        # What follows the end is padding.
        [[THE, FILM, END, PAD], [SONG, END, PAD, PAD]],
        rewards,
        encoding.marks,
    )
    np.testing.assert_array_equal(
        drawn.previous, [[BEGIN, THE, BREAK, FILM], [BEGIN, BAD, END, PAD]]
    )
    np.testing.assert_array_equal(drawn.sentences[0], [0, 0, 1, 1])
    np.testing.assert_array_equal(drawn.mask, [[1, 1, 1, 1], [1, 1, 0, 0]])
    # Q = 3, of a greedy summary; shorter ones keep their last value.
    np.testing.assert_allclose(drawn.sampled, [[2 / 3, 1, 1], [0, 0, 0]])
    np.testing.assert_allclose(drawn.greedy, [[0, 0, 0], [0, 0, 0.5]])


def small_model(seed=0, layers=1):
    config = AgentsConfig(
        V, hidden_size=4, embedding_size=4, agents=2, contextual_layers=layers
    )
    return dca.communicating_agents(config, seed=seed)


def batch_of(rng, number=4):
    ids = rng.integers(5, V, (number, 2, 3)).astype("int32")
    target = np.array([[BEGIN, THE, GOOD]] * number, "int32")
    labels = np.array([[THE, GOOD, END]] * number, "int32")
    ones = np.ones(labels.shape, "float32")
    return (
        {
            "input_ids": ids,
            "input_mask": np.ones_like(ids),
            dca.TARGET: target,
        },
        {dca.LOG_P: labels, dca.STATES: (labels == END).astype("float32")},
        {dca.LOG_P: ones, dca.STATES: np.ones(number, "float32")},
    )


def compiled(encoding, optimizer, layers=1, graph=False, **kwargs):
    model = dca_rl.SelfCritical(
        small_model(layers=layers), encoding, reward="rouge1", **kwargs
    )
    model.compile(
        optimizer,
        {
            dca.LOG_P: dca_losses.ExtendedCrossEntropy(),
            dca.STATES: dca_losses.SemanticCohesion(),
        },
        loss_weights={dca.LOG_P: 1.0, dca.STATES: 0.1},
        # A few updates are done before a graph is traced.
        run_eagerly=not graph,
        jit_compile=False,
    )
    return model


def fit(model, batches):
    data = tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=keras.tree.map_structure(
            lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), batches[0]
        ),
    )
    found = model.fit(
        data, steps_per_epoch=len(batches), shuffle=False, verbose=0
    )
    return {name: values[0] for name, values in found.history.items()}


def certain(model):
    """Lets the network write one token: another has a P of some e^-20.

    Not of e^-100, which is 0 in float32 on some processors: what has no
    probability at all has no gradient.
    """
    layer = model.agents.get_layer(dca.AGENTS)
    # Not copied: v7 y = 20 of every word, also of the beginning.
    layer.word_embeddings.assign(np.ones_like(layer.word_embeddings))
    layer.switch.word.assign(np.full_like(layer.switch.word, 5.0))
    bias = np.zeros(V, "float32")
    bias[GOOD] = 20
    layer.vocabulary.outer.bias.assign(bias)


def test_no_step_where_the_sample_is_the_greedy_summary(encoding):
    sgd = keras.optimizers.SGD(1.0)
    model = compiled(encoding, sgd, layers=0, gamma=1.0)
    certain(model)
    before = model.agents.get_weights()
    logs = fit(model, [batch_of(np.random.default_rng(0))])
    assert logs["loss"] == 0.0
    # "good good good good good" beside "the good".
    assert logs[dca_rl.SAMPLED] == pytest.approx(2 / 7)
    assert logs[dca_rl.GREEDY] == pytest.approx(2 / 7)
    for one, other in zip(before, model.agents.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # The same network, with the mixed loss, learns from the reference.
    sgd = keras.optimizers.SGD(1.0)
    mixed = compiled(encoding, sgd, layers=0, gamma=0.5)
    certain(mixed)
    before = mixed.agents.get_weights()
    fit(mixed, [batch_of(np.random.default_rng(0))])
    pairs = zip(before, mixed.agents.get_weights(), strict=True)
    assert any((one != other).any() for one, other in pairs)


def test_an_update_is_that_of_the_losses(encoding):
    sgd = keras.optimizers.SGD(0.5)
    kind = {"layers": 0, "graph": True}  # as the script has it
    model = compiled(encoding, sgd, **kind, gamma=0.7, seed=3)
    x, y, weight = batch = batch_of(np.random.default_rng(0))
    agents = small_model(layers=0)
    drawn = dca_rl.Drawn(
        *model.draw(x["input_ids"], x["input_mask"], y[dca.LOG_P], 0)
    )
    assert (drawn.sampled[:, -1] != drawn.greedy[:, -1]).any()
    with tf.GradientTape() as tape:
        out = agents(x)
        mle = dca_losses.mle(out[dca.LOG_P], y[dca.LOG_P], weight[dca.LOG_P])
        sem = dca_losses.cohesion(out[dca.STATES], y[dca.STATES])
        along = agents({**x, dca.TARGET: drawn.previous})[dca.LOG_P]
        index = np.stack(np.indices(drawn.tokens.shape), -1)
        index = np.concatenate([index, drawn.tokens[..., None]], -1)
        # Each document has one sentence or more; R of a sentence by hand.
        padded = [
            np.pad(r, ((0, 0), (1, 0))) for r in (drawn.sampled, drawn.greedy)
        ]
        own, base = (
            r[:, -1:] - np.take_along_axis(r, drawn.sentences, 1)
            for r in padded
        )
        rl = tf.reduce_sum(
            (base - own) * drawn.mask * tf.gather_nd(along, index)
        )
        loss = 0.7 * rl / 4 + 0.3 * (mle + 0.1 * tf.reduce_mean(sem))
    variables = agents.trainable_variables
    gradients = tape.gradient(loss, variables)
    assert fit(model, [batch])["loss"] == pytest.approx(float(loss), abs=1e-5)
    for v, g, new in zip(
        variables, gradients, model.trainable_variables, strict=True
    ):
        wanted = v.numpy() - 0.5 * tf.convert_to_tensor(g).numpy()
        np.testing.assert_allclose(new.numpy(), wanted, atol=1e-5)


def test_rewards_rise_where_they_alone_teach(encoding):
    """gamma = 1: what a summary shares with the reference is learned."""
    model = compiled(encoding, keras.optimizers.Adam(0.2), layers=0, gamma=1.0)
    rng = np.random.default_rng(0)
    first = fit(model, [batch_of(rng, 64)])
    fit(model, [batch_of(rng, 64) for _ in range(10)])
    last = fit(model, [batch_of(rng, 64)])
    assert first[dca_rl.SAMPLED] < 0.3
    assert last[dca_rl.SAMPLED] > 0.4


def test_one_thread_is_refused_where_drawing_would_wait_for_itself(
    encoding, monkeypatch
):
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "1")
    with pytest.raises(ValueError, match="TF_NUM_INTEROP_THREADS=2"):
        dca_rl.SelfCritical(None, encoding)
