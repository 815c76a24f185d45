"""A cell of the table in float64 NumPy: no Keras, no TensorFlow, no tf_lamb.

The models of `features.py` and their gradients by hand, and the optimizer of
`tests/reference`.
"""

import numpy as np

from tests.reference.groups import ReferenceGroup, ReferenceGroups
from tests.reference.lamb import ReferenceLAMB
from tests.support_matrix.features import BATCH, EPOCHS, ROWS, data

# What each feature's argument is called in the reference.
_ARGUMENTS = {
    "global_clipnorm": "global_clipnorm",
    "gradient_accumulation_steps": "accumulation_steps",
    "ema_momentum": "ema_momentum",
}
# Those of `features.GROUPS`; decays of the layer's elements, 8 of the kernel's.
_GROUPS = [
    ReferenceGroup(("hidden/kernel",), 0.5, parts={"hidden/kernel": (1, 8)}),
    ReferenceGroup(
        ("out/kernel", "out/bias"),
        joined=True,
        changes={
            "weight_decay": np.array([0.2] * 8 + [0.0]),
            "beta_1": 0.5,
        },
    ),
]


def _names(model):
    """Of the weights, in the order of `model.get_weights()`."""
    layers = ["hidden", *(["shared"] if model == "shared" else []), "out"]
    names = [f"{layer}/{w}" for layer in layers for w in ("kernel", "bias")]
    if model == "embedding":
        return ["words", *names]
    if model == "spare":
        return [*names[:2], "spare", *names[2:]]
    return names


def _dense(x, params, layer):
    return x @ params[f"{layer}/kernel"] + params[f"{layer}/bias"]


def _dense_back(grads, x, params, layer, dy):
    """Adds the layer's gradients, as it may be used twice; returns d x."""
    for name, grad in (("kernel", x.T @ dy), ("bias", dy.sum(0))):
        name = f"{layer}/{name}"
        grads[name] = grads.get(name, 0.0) + grad
    return dy @ params[f"{layer}/kernel"].T


def _gradients(model, params, x, ids, y):
    """Of the mean squared error, by name; None for `spare`."""
    # B rows, 2 ids a row: [B, 6 + 2] or, with an embedding, [B, 6 + 2 * 4].
    words = np.zeros(ids.shape)
    if model == "embedding":
        words = params["words"][ids].reshape(len(ids), -1)
    layers = ["hidden", *(["shared"] * 2 if model == "shared" else [])]
    h = [np.concatenate([x, words], axis=1)]
    for layer in layers:
        h.append(np.tanh(_dense(h[-1], params, layer)))
    grads = {"spare": None} if model == "spare" else {}
    d = 2 * (_dense(h[-1], params, "out") - y) / len(y)
    d = _dense_back(grads, h[-1], params, "out", d)
    for layer, h_in, h_out in zip(layers[::-1], h[-2::-1], h[:0:-1]):
        d = _dense_back(grads, h_in, params, layer, d * (1 - h_out**2))
    if model == "embedding":
        grads["words"] = np.zeros_like(params["words"])
        d_words = d[:, x.shape[1] :].reshape(*ids.shape, -1)
        np.add.at(grads["words"], ids, d_words)
    return grads


def reference_run(feature, initial, missing=None):
    """Trains a cell; returns its weights.

    Args:
      feature: a `Feature`; its dtype policy is not looked at.
      initial: the model's first weights, in its order.
      missing: gradient of a variable without use: None, or 0 as JAX has it.
    """
    names = _names(feature.model)
    params = dict(zip(names, (w.astype("float64") for w in initial)))
    no_decay = [name for name in names if name.endswith("bias")]
    arguments = feature.arguments
    settings = {
        "learning_rate": 0.02,
        "weight_decay": 0.1,
        "no_decay": no_decay,
        "no_adapt": no_decay,
        **{_ARGUMENTS[a]: arguments[a] for a in arguments if a in _ARGUMENTS},
    }
    if "groups" in arguments:
        settings["no_adapt"] = []
        optimizer = ReferenceGroups(ReferenceLAMB, _GROUPS, **settings)
    else:
        optimizer = ReferenceLAMB(**settings)
    overwrite_every = arguments.get("ema_overwrite_frequency")
    (x, ids), y = data(feature)
    for _ in range(EPOCHS):
        for i in range(0, ROWS, BATCH):
            rows = slice(i, i + BATCH)
            grads = _gradients(
                feature.model, params, x[rows], ids[rows], y[rows]
            )
            if "spare" in grads and missing is not None:
                grads["spare"] = missing * params["spare"]
            params = optimizer.step(params, grads)
            if overwrite_every and optimizer.t % overwrite_every == 0:
                params = dict(optimizer.average)
    if optimizer.average:  # what `fit` ends with
        params = dict(optimizer.average)
    return [params[name] for name in names]
