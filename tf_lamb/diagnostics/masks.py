r"""Masks of weights: where they are, and an optimizer that keeps to them.

A pruned weight is 0 and stays so. Its gradient is multiplied by its mask, `m
\odot g`, before the optimizer sees it: that is the gradient of the pruned
network `f(m \odot w)`, so that moments of pruned weights stay 0, and norms,
trust ratios and clipping are those of the weights that are left. After each
update the weights are multiplied by the mask too, for optimizers whose update
of one weight depends on the gradients of others (Muon).

References:
  Frankle and Carbin 2019 (arXiv:1803.03635); Han et al. 2015
  (arXiv:1506.02626).
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from tf_lamb import check

__all__ = [
    "SCOPES",
    "by_magnitude",
    "masked_optimizer",
    "prunable",
    "sparsity",
    "shuffled",
]

Masks = dict[int, np.ndarray]
SCOPES = ("layer", "global")


def prunable(model: Any) -> list[int]:
    """Places in `model.trainable_variables` of what is pruned.

    These are kernels and embeddings, the variables of two axes and more;
    biases and scales stay.

    Args:
      model: built, of Keras 3.

    Raises:
      ValueError: there is none.
    """
    found = [
        i for i, v in enumerate(model.trainable_variables) if len(v.shape) > 1
    ]
    if not found:
        raise ValueError(
            "model: expected trainable weights of two axes or more to prune, "
            "got none."
        )
    return found


def by_magnitude(
    weights: Sequence[np.ndarray],
    masks: Masks,
    share: float,
    scope: str = "layer",
) -> Masks:
    """Masks without the smallest of the weights that are left.

    Args:
      weights: of all trainable variables, after training.
      masks: so far, bool, by the variable's place.
      share: of the weights that are left, rounded down; in [0, 1]. One at
        least is left of what is compared.
      scope: "layer", the share of each variable, or "global", of all
        variables together.

    Raises:
      ValueError: an argument is out of its range.
    """
    share = check.share("share", share)
    if check.one_of("scope", scope, SCOPES) == "layer":
        return {
            i: _without_smallest([weights[i]], [mask], share)[0]
            for i, mask in masks.items()
        }
    found = _without_smallest(
        [weights[i] for i in masks], list(masks.values()), share
    )
    return dict(zip(masks, found))


def _without_smallest(
    weights: list[np.ndarray], masks: list[np.ndarray], share: float
) -> list[np.ndarray]:
    sizes = np.concatenate([abs(w).ravel() for w in weights])
    left = np.concatenate([m.ravel() for m in masks])
    places = np.flatnonzero(left)
    count = min(int(share * len(places)), len(places) - 1)
    # Stable, so that equal weights are taken in the same order everywhere.
    order = np.argsort(sizes[places], kind="stable")
    left = left.copy()
    left[places[order[: max(count, 0)]]] = False
    ends = np.cumsum([m.size for m in masks])[:-1]
    return [
        part.reshape(m.shape) for part, m in zip(np.split(left, ends), masks)
    ]


def shuffled(masks: Masks, random: np.random.Generator) -> Masks:
    """Random masks, each with as many weights left as the one given.

    Args:
      masks: by the variable's place.
      random: draws the places.
    """
    return {
        i: random.permutation(mask.ravel()).reshape(mask.shape)
        for i, mask in masks.items()
    }


def sparsity(masks: Masks) -> float:
    """The share of masked variables' weights that are pruned, in [0, 1].

    Args:
      masks: by the variable's place.
    """
    sizes = sum(m.size for m in masks.values())
    return 1 - sum(int(m.sum()) for m in masks.values()) / sizes


def masked_optimizer(optimizer: Any, variables: dict[int, Any]) -> Any:
    """A new optimizer like one of Keras 3 that leaves pruned weights at 0.

    It trains on one device. A sparse gradient becomes a dense one.

    Args:
      optimizer: of Keras 3 on any backend; its state is not taken over.
      variables: `{id(variable): (variable, mask)}`, masks as the variable's
        shape, bool.

    Returns:
      An optimizer of a class derived from the optimizer's, with its config.
    """
    import keras

    kind: Any = type(optimizer)

    class Masked(kind):
        """The optimizer, of a pruned network."""

        def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
            trained = list(trainable_variables or self._trainable_variables)
            grads = [_times(g, v) for g, v in zip(grads, trained)]
            found = super().apply(grads, trainable_variables)
            for variable in trained:
                if id(variable) in variables:
                    variable.assign(_times(variable.value, variable))
            return found

    def _times(value: Any, variable: Any) -> Any:
        if value is None or id(variable) not in variables:
            return value
        value = keras.ops.convert_to_tensor(value)
        mask = variables[id(variable)][1].astype("float32")
        mask = keras.ops.convert_to_tensor(mask)
        return value * keras.ops.cast(mask, value.dtype)

    Masked.__name__ = kind.__name__
    return Masked.from_config(optimizer.get_config())
