"""The loop over variables that every reference of a form of LAMB has."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from .lamb import Parameters


class Peer:
    """The loop over variables, which is the same for all.

    Args:
        learning_rate: rate, or a function from the number of earlier steps.
        weight_decay: of the variables that are not in `no_decay`.
        no_decay: names of variables whose group has decay 0.
        **options: the other arguments, by the names of this repository.

    Attributes:
        m: first moments by name.
        v: second moments by name.
        trust_ratios: last ratio by name, as a source would print it.
    """

    defaults: dict = {}

    def __init__(
        self,
        learning_rate: float | Callable[[int], float],
        weight_decay: float,
        *,
        no_decay: Collection[str] = (),
        **options,
    ):
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.no_decay = no_decay
        shared = {"beta_1": 0.9, "beta_2": 0.999, "bias_correction": True}
        known = {**shared, **self.defaults}
        unknown = set(options) - set(known)
        if unknown:
            raise ValueError(f"{type(self).__name__}: no option {unknown}")
        for name, value in {**known, **options}.items():
            setattr(self, name, value)
        self.t = 0
        self.m: Parameters = {}
        self.v: Parameters = {}
        self.trust_ratios: dict[str, float] = {}

    def step(self, params: Parameters, grads: Parameters) -> Parameters:
        """One step of all variables.

        Args:
            params: float64 parameters by name; not written to.
            grads: gradients of the same names and shapes.
        """
        lr = self.learning_rate
        lr = lr(self.t) if callable(lr) else lr
        self.t += 1
        norm = np.sqrt(sum(np.sum(g * g) for g in grads.values()))
        new = {}
        for name, p in params.items():
            self.m.setdefault(name, np.zeros_like(p))
            self.v.setdefault(name, np.zeros_like(p))
            decay = 0.0 if name in self.no_decay else self.weight_decay
            new[name] = self._step(name, p, grads[name], lr, decay, norm)
        return new
