"""What the cells of the table train: features, data and a small model.

Nothing here but NumPy, groups, and the Keras that is handed in.
"""

import numpy as np

from tf_lamb import Group

BATCH = 16
EPOCHS = 2
ROWS = 64
# A row of the second batch, in the part of the last replica.
LAST_REPLICA_ROW = 31


class Feature:
    """What is particular about a run.

    Args:
      arguments: of the optimizer.
      policy: dtype policy of the layers.
      model: "dense", "embedding" (repeated ids), "shared" (a layer used twice)
        or "spare" (a variable without gradient).
      bad_row: row whose input is NaN.
      own_loop: a loop of our own in place of `fit`.
    """

    def __init__(
        self,
        arguments=None,
        policy="float32",
        model="dense",
        bad_row=None,
        own_loop=False,
    ):
        self.arguments = arguments or {}
        self.policy = policy
        self.model = model
        self.bad_row = bad_row
        self.own_loop = own_loop


# Some of the gradients' norms are above it, some below (0.7 to 2.5): if all are
# clipped, LAMB sees no difference between a sum and a mean.
CLIP = {"global_clipnorm": 1.5}
# Eight updates: the last overwrite is that at the end of training.
EMA = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}
# A ratio of each of the kernel's eight columns, and one of a whole layer.
GROUPS = {
    "groups": [
        Group("hidden/kernel", 0.5, trust_ratio_per="filter"),
        Group("out", weight_decay=0.2, beta_1=0.5, trust_ratio_per="layer"),
    ],
    "exclude_from_layer_adaptation": [],
}
FEATURES = {
    "fit": Feature(),
    "custom loop": Feature(own_loop=True),
    "global clip": Feature(CLIP),
    "accumulation": Feature({"gradient_accumulation_steps": 2, **CLIP}),
    "EMA overwrite": Feature(EMA),
    "groups": Feature(GROUPS),
    "bfloat16": Feature(policy="mixed_bfloat16"),
    "float16 scaled": Feature(policy="mixed_float16"),
    "float16 accumulation": Feature(
        {"gradient_accumulation_steps": 2, **CLIP}, policy="mixed_float16"
    ),
    "repeated ids": Feature(model="embedding"),
    "shared layer": Feature(model="shared"),
    "no gradient": Feature(model="spare"),
    "NaN on one": Feature(bad_row=LAST_REPLICA_ROW),
    "float16 NaN on one": Feature(
        policy="mixed_float16", bad_row=LAST_REPLICA_ROW
    ),
}


def data(feature):
    """`(x [64, 6], ids [64, 2]), y [64, 1]`, the same for every run."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 6)).astype("float32")
    ids = rng.integers(0, 5, size=(ROWS, 2)).astype("int32")
    y = rng.normal(size=(ROWS, 1)).astype("float32")
    if feature.bad_row is not None:
        x[feature.bad_row] = np.nan
    return (x, ids), y


def make_model(keras, feature):
    """A model with weights that do not depend on the front end."""

    class Spare(keras.layers.Layer):
        def build(self, shape):
            self.spare = self.add_weight(
                name="spare", shape=(3,), initializer="ones", trainable=True
            )

        def call(self, x):
            return x

    dtype = feature.policy
    layers = keras.layers
    inputs = keras.Input((6,)), keras.Input((2,), dtype="int32")
    if feature.model == "embedding":
        words = layers.Embedding(5, 4, name="words", dtype=dtype)(inputs[1])
        words = layers.Flatten(dtype=dtype)(words)
    else:
        words = layers.Rescaling(0.0, dtype=dtype)(inputs[1])
    h = layers.Concatenate(dtype=dtype)([inputs[0], words])
    h = layers.Dense(8, "tanh", name="hidden", dtype=dtype)(h)
    if feature.model == "shared":
        shared = layers.Dense(8, "tanh", name="shared", dtype=dtype)
        h = shared(shared(h))
    if feature.model == "spare":
        h = Spare(name="spare", dtype=dtype)(h)
    y = layers.Dense(1, name="out", dtype=dtype)(h)
    y = layers.Activation("linear", dtype="float32")(y)
    model = keras.Model(inputs, y)
    rng = np.random.default_rng(1)
    model.set_weights(
        [0.5 * rng.normal(size=w.shape) for w in model.get_weights()]
    )
    return model


def make_optimizer(keras, lamb, feature, arguments):
    """LAMB with what all cells share, under a loss scaler for float16."""
    optimizer = lamb(
        0.02,
        weight_decay=0.1,
        exclude_from_weight_decay=["bias"],
        **arguments,
    )
    if feature.policy == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(
            optimizer, initial_scale=256.0
        )
    return optimizer


def inner(optimizer):
    """The optimizer under a loss scaler, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def whole_batches(feature):
    """Arguments and batch size of the same run without accumulation."""
    arguments = dict(feature.arguments)
    steps = arguments.pop("gradient_accumulation_steps", 1)
    return arguments, BATCH * steps
