"""What happens to a gradient before an update rule sees it.

Naive NumPy in float64, shared by the LAMB and the LARS reference. Gradients
are dictionaries from variable name to array; None marks a variable that the
loss does not reach.
"""

from __future__ import annotations

from typing import Optional

import numpy as np

Gradients = dict[str, Optional[np.ndarray]]


def clip(
    grads: Gradients,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
) -> Gradients:
    """Clips by variable, by element or by the norm of all gradients.

    clipnorm c:         g <- g min(1, c / |g|_2), each variable by itself
    clipvalue c:        g <- min(max(g, -c), c), each element by itself
    global_clipnorm c:  g <- g min(1, c / G), G^2 = sum over i of |g(i)|_2^2

    These norms are Euclidean whatever norm the trust ratio uses.

    Args:
        grads: gradients; the sum of G runs over those that are not None.
        clipnorm: bound on the norm of one variable's gradient.
        clipvalue: bound on the magnitude of one element.
        global_clipnorm: bound on the norm of all gradients together.

    Returns:
        The clipped gradients, None where `grads` has None.

    References:
        Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent
        neural networks", 2013, Algorithm 1 (`global_clipnorm`).
    """

    def shrink(size, bound):
        return 1.0 if size <= bound else bound / size

    def euclidean(g):
        return np.sqrt(np.sum(g * g))

    clipped = dict(grads)
    present = {name: g for name, g in grads.items() if g is not None}
    if clipnorm is not None:
        for name, g in present.items():
            clipped[name] = g * shrink(euclidean(g), clipnorm)
    elif clipvalue is not None:
        for name, g in present.items():
            clipped[name] = np.minimum(np.maximum(g, -clipvalue), clipvalue)
    elif global_clipnorm is not None:
        total = np.sqrt(sum(np.sum(g * g) for g in present.values()))
        for name, g in present.items():
            clipped[name] = g * shrink(total, global_clipnorm)
    return clipped


def clip_by_unit(
    g: np.ndarray, w: np.ndarray, limit: float | None
) -> np.ndarray:
    """Clips each unit of a gradient against its weights.

    g(i) <- g(i) min(1, limit max(|w(i)|, 0.001) / |g(i)|)

    A unit i is a place on the last axis; a variable of rank 0 or 1, also after
    axes of length 1 are left out, is one unit.

    Args:
        g: gradient of one variable.
        w: the variable, same shape.
        limit: share of the weights' norm, or None for g itself.

    References:
        Brock et al., "High-performance large-scale image recognition without
        normalization", arXiv:2102.06171, 2021, equation 3.
    """
    if limit is None:
        return g
    one_unit = np.squeeze(g).ndim <= 1
    units = (g.size, 1) if one_unit else (-1, g.shape[-1])
    g_units, w_units = g.reshape(units), w.reshape(units)
    clipped = np.empty_like(g_units)
    for i in range(g_units.shape[1]):
        g_norm, w_norm = (np.linalg.norm(z[:, i]) for z in (g_units, w_units))
        most = limit * max(w_norm, 1e-3)
        factor = most / g_norm if g_norm > most else 1.0
        clipped[:, i] = factor * g_units[:, i]
    return clipped.reshape(g.shape)


class GradientPath:
    """Accumulates k micro-batches, drops a non-finite mean, then clips.

    g = clip((g_1 + ... + g_k) / k)

    In the sum a None counts as zero, which is what the variable contributes
    to the gradient of the k micro-batches taken as one; a variable that is
    None k times stays None. Finiteness is judged before clipping, since
    `clipvalue` would hide an infinity.

    Attributes:
        skipped_steps: number of means dropped so far.
    """

    def __init__(
        self,
        clipnorm: float | None,
        clipvalue: float | None,
        global_clipnorm: float | None,
        accumulation_steps: int,
        skip_nonfinite: bool,
    ):
        bounds = (clipnorm, clipvalue, global_clipnorm)
        if sum(bound is not None for bound in bounds) > 1:
            raise ValueError(
                "clipnorm, clipvalue, global_clipnorm: at most one can be "
                f"set, given {bounds}"
            )
        if accumulation_steps < 1:
            raise ValueError(
                "accumulation_steps: expected at least 1, given "
                f"{accumulation_steps}"
            )
        self.bounds = bounds
        self.accumulation_steps = accumulation_steps
        self.skip_nonfinite = skip_nonfinite
        self.skipped_steps = 0
        self.held: list[Gradients] = []

    def __call__(self, grads: Gradients) -> Gradients | None:
        """Takes one micro-batch in.

        Args:
            grads: its gradients, with the same names in every call.

        Returns:
            The gradients to apply now, or None when there is no update now:
            the accumulation is not complete, or its mean is not finite.
        """
        self.held.append(
            {
                name: None if g is None else np.array(g, np.float64)
                for name, g in grads.items()
            }
        )
        if len(self.held) < self.accumulation_steps:
            return None
        mean = {name: self._mean(name) for name in grads}
        self.held = []
        if self.skip_nonfinite and not all(
            np.all(np.isfinite(g)) for g in mean.values() if g is not None
        ):
            self.skipped_steps += 1
            return None
        return clip(mean, *self.bounds)

    def _mean(self, name: str) -> np.ndarray | None:
        parts = [grads[name] for grads in self.held if grads[name] is not None]
        if not parts:
            return None
        return sum(parts) / self.accumulation_steps
