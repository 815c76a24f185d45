r"""Gamma-decay compensation: what a small batch did to gamma, at a large one.

Batch normalization decays gamma by `zeta gamma^2`, zeta proportional to 1 / M
(`theory`). At a large batch this is gone, and LARS and LAMB by custom exclude
gamma from weight decay too. To have the decay of a batch of M_ref at M:

    model = ...  # with keras.layers.BatchNormalization
    gamma_decay.compensate(model, zeta=0.375, batch_size=4096,
                           reference_batch_size=256)
    model.compile(tf_lamb.LARS(...), ...)

This adds `zeta (1/M_ref - 1/M) sum gamma^2` to the loss, whatever the optimizer
excludes. `DecoupledGammaDecay` shrinks gamma beside the optimizer instead, as
AdamW does weights: LAMB divides gradients by their size, which a term of the
loss goes through.

References:
    Luo et al. 2019 (arXiv:1809.00846)
    Loshchilov, Hutter 2019, "Decoupled Weight Decay Regularization"
    (arXiv:1711.05101)
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from official_models.vision.batch_norm.layers import normalizations, register
from tf_lamb import check

# zeta M of a rectifier-like unit with Gaussian inputs and beta = 0:
# (rho + 2) / 8 * 1/2 + 1/2 * 1/2.
GAUSSIAN_ZETA = 0.375


def strength(zeta: float, batch_size: int, reference_batch_size: int) -> float:
    r"""$\zeta (1/M_{ref} - 1/M)$.

    Args:
        zeta: Of a batch of one example, that is zeta M, at least 0.
        batch_size: M: of the examples whose statistics normalize them. On
            several replicas without synchronized statistics, of a replica.
        reference_batch_size: M_ref, at most M.

    Raises:
        ValueError: An argument is out of range.
    """
    zeta = check.non_negative("zeta", zeta)
    batch_size = check.count("batch_size", batch_size, 1)
    reference = check.count("reference_batch_size", reference_batch_size, 1)
    if reference > batch_size:
        raise ValueError(
            f"reference_batch_size: expected at most batch_size {batch_size}, "
            f"got {reference}; a smaller batch decays gamma more by itself"
        )
    return zeta * (1 / reference - 1 / batch_size)


@register
class GammaDecay(keras.regularizers.Regularizer):
    r"""The regularizer $\zeta (1/M_{ref} - 1/M) \sum \gamma^2$.

    For `gamma_regularizer` of a layer; `compensate` gives it to all of a model.

    Args:
        zeta: As of `strength`, like the others.
        batch_size: M.
        reference_batch_size: M_ref.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        zeta: float = GAUSSIAN_ZETA,
        *,
        batch_size: int,
        reference_batch_size: int,
    ):
        self.strength = strength(zeta, batch_size, reference_batch_size)
        self.zeta = float(zeta)
        self.batch_size = int(batch_size)
        self.reference_batch_size = int(reference_batch_size)

    def __call__(self, gamma: Any) -> Any:
        """The penalty of a gamma, a scalar."""
        return self.strength * ops.sum(ops.square(gamma))

    def get_config(self) -> dict[str, Any]:
        """The arguments of a regularizer equal to this one."""
        return {
            "zeta": self.zeta,
            "batch_size": self.batch_size,
            "reference_batch_size": self.reference_batch_size,
        }


def compensate(
    model: keras.Model,
    zeta: float = GAUSSIAN_ZETA,
    *,
    batch_size: int,
    reference_batch_size: int,
) -> GammaDecay:
    """Gives the regularizer to every gamma of a model.

    A regularizer that a gamma has stays: the two are added.

    Args:
        model: Built; compile it afterwards.
        zeta: As of `strength`, like the others.
        batch_size: M.
        reference_batch_size: M_ref.

    Returns:
        The regularizer.

    Raises:
        ValueError: An argument is out of range, or there is no gamma.
    """
    term = GammaDecay(
        zeta, batch_size=batch_size, reference_batch_size=reference_batch_size
    )
    for layer in normalizations(model):
        known = layer.gamma.regularizer
        together = term if known is None else Sum(known, term)
        layer.gamma.regularizer = layer.gamma_regularizer = together
    return term


@register
class Sum(keras.regularizers.Regularizer):
    """Two regularizers, added.

    Args:
        one: A regularizer.
        other: Another one.
    """

    def __init__(self, one: Any, other: Any):
        self.one = keras.regularizers.get(one)
        self.other = keras.regularizers.get(other)

    def __call__(self, x: Any) -> Any:
        """The sum of both."""
        return self.one(x) + self.other(x)

    def get_config(self) -> dict[str, Any]:
        """The arguments of a regularizer equal to this one."""
        return {
            "one": keras.regularizers.serialize(self.one),
            "other": keras.regularizers.serialize(self.other),
        }


class DecoupledGammaDecay(keras.callbacks.Callback):
    r"""Shrinks gamma after each update: $\gamma (1 - 2 \eta c)$.

    Of accumulated gradients, after each update, not after each batch. Gammas
    that are not trained stay.

    c is the `strength`, eta the optimizer's rate of this update. With plain
    SGD this is `GammaDecay`, but for its gradient being taken after the
    update; with LAMB it is a decay that no second moment divides.

    Args:
        zeta: As of `strength`, like the others.
        batch_size: M.
        reference_batch_size: M_ref.

    Raises:
        ValueError: An argument is out of range; or, of `fit`, the model was
            compiled with `steps_per_execution` above 1, which hides updates
            from callbacks.
    """

    def __init__(
        self,
        zeta: float = GAUSSIAN_ZETA,
        *,
        batch_size: int,
        reference_batch_size: int,
    ):
        super().__init__()
        self.strength = strength(zeta, batch_size, reference_batch_size)

    def on_train_begin(self, logs=None):
        """Finds the gammas and the state of the optimizer."""
        steps = self.model.steps_per_execution
        if steps != 1:
            raise ValueError(
                f"steps_per_execution = {steps}: expected 1, for gamma shrinks "
                "after each update; or use compensate(), a term of the loss"
            )
        gammas = [layer.gamma for layer in normalizations(self.model)]
        self._gammas = [gamma for gamma in gammas if gamma.trainable]
        self._updates = self._updates_now()

    def on_train_batch_begin(self, batch, logs=None):
        """Notes the rate, which a callback may have set for this epoch."""
        self._rate = self._rate_now()

    def on_train_batch_end(self, batch, logs=None):
        """Shrinks them, by the rate with which this update was made."""
        updates = self._updates_now()
        if updates == self._updates:
            return  # the batch's gradients were accumulated
        for gamma in self._gammas:
            gamma.assign(gamma * (1 - 2 * self._rate * self.strength))
        self._updates = updates

    def _updates_now(self) -> int:
        return int(ops.convert_to_numpy(self.model.optimizer.iterations))

    def _rate_now(self) -> float:
        rate = self.model.optimizer.learning_rate
        return float(ops.convert_to_numpy(rate))
