r"""The networks that weight terms.

A document x, counts over their sum, becomes

$$v = tf(x) \odot w(tpr, fpr), \qquad v / |v|$$

with `tf(x) = log(1 + x)`, or learned. w is a network on the rates of the terms:

    local    for each term, (tpr, fpr) -> 1000 -> 1, one network for all terms
    global   all rates at once, 2 F -> F / 2 -> F

Axes: B documents, F terms.

References:
    Moreo, Esuli, Sebastiani, "Learning to Weight for Text Classification"
    (arXiv:1903.12090), and its code
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from official_models.common.layer import registration, seed_of
from tf_lamb import check

Array = Any
KINDS = ("local", "global")
OUTPUTS = ("sigmoid", "identity")
_TF_UNITS = 100
_SMALLEST_NORMAL = 2.0**-126

register = registration("tf_lamb_models.term_weighting")


def _dense(units: int, activation: str, seed: int, name: str) -> layers.Dense:
    initial = keras.initializers.GlorotUniform(seed_of(f"{seed}/{name}"))
    return layers.Dense(
        units,
        activation,
        kernel_initializer=initial,
        name=name,
    )


@register
class LearnedWeights(layers.Layer):
    """From documents to weighted vectors of length 1.

    Args:
        terms: F.
        kind: One of `KINDS`.
        output: Activation of w, one of `OUTPUTS`.
        hidden: Units of the local network.
        dropout: Rate behind the hidden units.
        learn_tf: Whether tf is `MLP(x) sign(x)`, 1 -> 100 -> 1, both ReLU.
        seed: Of initial weights and dropout.
        **kwargs: Passed to `keras.layers.Layer`.

    Attributes:
        rates: (tpr, fpr) of the terms, [F, 2]: assign them before training.
        net: The network w: [F, 2] -> [F, 1] (local), [1, 2 F] -> [1, F].

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        terms: int,
        kind: str = "local",
        output: str = "identity",
        hidden: int = 1000,
        dropout: float = 0.2,
        learn_tf: bool = False,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.terms = check.count("terms", terms, 1)
        self.kind = check.one_of("kind", kind, KINDS)
        self.output_name = check.one_of("output", output, OUTPUTS)
        self.hidden = check.count("hidden", hidden, 1)
        self.dropout = check.share("dropout", dropout)
        self.learn_tf, self.seed = bool(learn_tf), seed
        self.net = self._make_net()
        self.tf_net = None
        if self.learn_tf:
            self.tf_net = keras.Sequential(
                [
                    keras.Input((1,)),
                    _dense(_TF_UNITS, "relu", seed, "tf_hidden"),
                    _dense(1, "relu", seed, "tf_output"),
                ],
                name="tf",
            )

    def _make_net(self) -> keras.Model:
        local = self.kind == "local"
        hidden = self.hidden if local else max(1, self.terms // 2)
        activation = "sigmoid" if self.output_name == "sigmoid" else "linear"
        return keras.Sequential(
            [
                keras.Input((2,) if local else (2 * self.terms,)),
                _dense(hidden, "relu", self.seed, "hidden"),
                layers.Dropout(self.dropout, seed=self.seed),
                _dense(
                    1 if local else self.terms, activation, self.seed, "output"
                ),
            ],
            name="weights",
        )

    def build(self, input_shape):
        """Makes `rates`."""
        self.rates = self.add_weight(
            shape=(self.terms, 2),
            initializer="zeros",
            trainable=False,
            name="rates",
        )

    def net_input(self, rates: Array) -> Array:
        """The terms' rates [F, 2] as `net` takes them."""
        return rates if self.kind == "local" else ops.reshape(rates, (1, -1))

    def term_weights(
        self, training: bool | None = None, present: Array | None = None
    ) -> Array:
        """w, [F].

        Args:
            training: Whether hidden units are dropped.
            present: Places of the terms whose weight is needed, int32 [K], in
                a local network; the others are 0, and so is the weight at F,
                which fills K up. None: all.
        """
        if present is None:
            found = self.net(self.net_input(self.rates), training=training)
            return ops.reshape(found, (self.terms,))
        # One term more, which is the filling.
        rates = ops.pad(self.rates, ((0, 1), (0, 0)))
        found = self.net(ops.take(rates, present, axis=0), training=training)
        places = ops.expand_dims(present, -1)
        flat = ops.reshape(found, (-1,))
        return ops.scatter(places, flat, (self.terms + 1,))[: self.terms]

    def term_frequency(self, x: Array) -> Array:
        """tf(x) of x [B, F]."""
        if self.tf_net is None:
            return ops.log1p(x)
        found = self.tf_net(ops.reshape(x, (-1, 1)))
        return ops.reshape(found, (-1, self.terms)) * ops.sign(x)

    def call(
        self,
        x: Array,
        present: Array | None = None,
        training: bool | None = None,
    ) -> Array:
        """Vectors [B, F] of documents [B, F], counts over their sum.

        Args:
            x: Documents.
            present: Of `term_weights`: at least the terms that x has.
            training: Whether hidden units are dropped.
        """
        v = self.term_frequency(x) * self.term_weights(training, present)
        squared = ops.sum(ops.square(v), axis=-1, keepdims=True)
        # No square root of 0, whose gradient is infinite.
        return v * ops.rsqrt(ops.maximum(squared, _SMALLEST_NORMAL))

    def get_config(self) -> dict[str, Any]:
        """The arguments of a layer equal to this one."""
        return {
            **super().get_config(),
            "terms": self.terms,
            "kind": self.kind,
            "output": self.output_name,
            "hidden": self.hidden,
            "dropout": self.dropout,
            "learn_tf": self.learn_tf,
            "seed": self.seed,
        }


def make(terms: int, *, seed: int = 0, **settings) -> keras.Model:
    """Vectors and a logistic classifier on them.

    Args:
        terms: F.
        seed: Of the initial weights.
        **settings: Of `LearnedWeights`.

    Returns:
        A model from [B, F], counts over their sum, to logits [B, 1]; its layer
        "weighting" is a `LearnedWeights`.
    """
    documents = keras.Input((terms,), name="documents")
    vectors = LearnedWeights(terms, seed=seed, name="weighting", **settings)(
        documents
    )
    logits = _dense(1, "linear", seed, "classifier")(vectors)
    return keras.Model(documents, logits, name="term_weighting")


def of_present_terms(made: keras.Model) -> keras.Model:
    """The same network, which computes only the weights that a batch needs.

    A term that is in no document of a batch changes neither its vectors nor a
    gradient. In a local network w can be left out for it; a batch of 100
    documents of Reuters has about a quarter of the terms.

    Args:
        made: By `make`, with a local network.

    Returns:
        A model of the same layers, from documents [B, F] and `present`, as of
        `LearnedWeights.term_weights`, to logits [B, 1].
    """
    layer = made.get_layer("weighting")
    documents = keras.Input((layer.terms,), name="documents")
    present = keras.Input((), dtype="int32", name="present")
    logits = made.get_layer("classifier")(layer(documents, present=present))
    return keras.Model([documents, present], logits, name="of_present_terms")
