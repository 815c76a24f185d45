"""A naive LARS in its five published forms: float64 NumPy, to be read."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from .clipping import GradientPath, Gradients, clip_by_unit
from .lamb import (
    Parameters,
    bounded,
    moving_average,
    norm_of,
    phi,
    rate_at,
)

FORMS = ("you2017", "optax", "timm", "model_garden", "you2020")


class ReferenceLARS:
    """LARS, one local rate per variable tensor.

    With d = g + lambda w, eta the trust coefficient and mu the momentum:

    you2017       local = eta phi(|w|) / (|g| + lambda |w| + epsilon)
                  buf = mu buf + lr local d
                  w = w - buf, or w - (mu buf + lr local d) with Nesterov
    optax         local = eta phi(|w|) / (|d| + epsilon), then as you2017
    timm          local as you2017
                  buf = mu buf + local d
                  w = w - lr buf, or w - lr (local d + mu buf) with Nesterov
    model_garden  buf = mu buf + d
                  u = buf, or d + mu buf with Nesterov
                  local = eta phi(|w|) / (|u| + epsilon)
                  w = w - lr local u
    you2020       buf = mu buf + (1 - mu) d
                  local = phi(|w|) / (|buf| + epsilon)
                  w = w - lr local buf

    `buf` on a right-hand side after its own line is the new one. local is 1
    for the variables of `no_adapt`, and where |w| or the norm that divides it
    is 0: |g| for you2017 and timm, |d| for optax, |u| for model_garden, |buf|
    for you2020.

    Args:
        learning_rate: rate, or a function from the number of earlier calls of
            `step` (micro-batches included) to the rate.
        momentum: mu, in [0, 1).
        weight_decay: lambda.
        trust_coefficient: eta; "you2020" has none and does not read it.
        epsilon: added to the denominator of the local rate.
        form: one of `FORMS`.
        nesterov: Nesterov momentum; "you2020" has no such form.
        norm: "l2", "l1" or "linf", for every norm of the local rate.
        phi_bounds: (gamma_l, gamma_u); None for phi(z) = z.
        trust_ratio_bounds: (low, high) of local, or None; a local that is 1
            because a norm is 0 or by `no_adapt` stays 1.
        no_decay: names of variables with lambda = 0.
        no_adapt: names of variables with local = 1.
        clipnorm: see `clipping.clip`.
        clipvalue: see `clipping.clip`.
        global_clipnorm: see `clipping.clip`.
        clip_by_unit: see `clipping.clip_by_unit`; after the others.
        accumulation_steps: k; every k-th call applies the mean of k gradients.
        ema_momentum: d; after each applied update `average` is w at the first
            one, then d average + (1 - d) w. None keeps no average.
        skip_nonfinite: drop an update whose gradients are not all finite.

    Attributes:
        buf: momentum buffers by name, zero at first.
        trust_ratios: last local by name, eta included, 1 at first.
        average: moving average by name, empty before the first update.
        skipped_steps: number of updates dropped by `skip_nonfinite`.

    References:
        You, Gitman, Ginsburg, "Large batch training of convolutional
        networks", 2017, arXiv:1708.03888, Algorithm 1 ("you2017"). You et al.,
        "Large batch optimization for deep learning: training BERT in 76
        minutes", ICLR 2020, Algorithm 1 ("you2020"). The forms "optax",
        "timm" and "model_garden" are those of `optax.lars`, of timm's `Lars`
        and of TensorFlow Model Garden's `LARS(classic_momentum=False)`.
    """

    def __init__(
        self,
        learning_rate: float | Callable[[int], float] = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        trust_coefficient: float = 0.001,
        epsilon: float = 0.0,
        form: str = "you2017",
        nesterov: bool = False,
        norm: str = "l2",
        phi_bounds: tuple[float, float] | None = None,
        trust_ratio_bounds: tuple[float, float] | None = None,
        no_decay: Collection[str] = (),
        no_adapt: Collection[str] = (),
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        clip_by_unit: float | None = None,
        accumulation_steps: int = 1,
        ema_momentum: float | None = None,
        skip_nonfinite: bool = True,
    ):
        if form not in FORMS:
            raise ValueError(f"form: expected one of {FORMS}, given {form!r}")
        if form == "you2020" and nesterov:
            raise ValueError("nesterov: form 'you2020' has no Nesterov form")
        norm_of(np.zeros(1), norm)
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.trust_coefficient = trust_coefficient
        self.epsilon = epsilon
        self.form = form
        self.nesterov = nesterov
        self.norm = norm
        self.phi_bounds = phi_bounds
        self.trust_ratio_bounds = trust_ratio_bounds
        self.no_decay = no_decay
        self.no_adapt = no_adapt
        self.clip_by_unit = clip_by_unit
        self.ema_momentum = ema_momentum
        self.gradient_path = GradientPath(
            clipnorm,
            clipvalue,
            global_clipnorm,
            accumulation_steps,
            skip_nonfinite,
        )
        self.calls = 0
        self.buf: Parameters = {}
        self.trust_ratios: dict[str, float] = {}
        self.average: Parameters = {}

    @property
    def skipped_steps(self) -> int:
        return self.gradient_path.skipped_steps

    def step(self, params: Parameters, grads: Gradients) -> Parameters:
        """Takes one micro-batch and returns the parameters after it.

        Args:
            params: parameters by name, any shapes; not written to.
            grads: gradients of the same names and shapes, None for a variable
                to be left alone.

        Returns:
            New float64 parameters; equal to `params` between updates.
        """
        params = {name: np.array(w, np.float64) for name, w in params.items()}
        for name, w in params.items():
            self.buf.setdefault(name, np.zeros_like(w))
            self.trust_ratios.setdefault(name, 1.0)

        rate = rate_at(self.learning_rate, self.calls)
        self.calls += 1
        grads = self.gradient_path(grads)
        if grads is None:
            return params

        rule = getattr(self, f"_{self.form}")
        for name, w in params.items():
            g = grads[name]
            if g is not None:
                g = clip_by_unit(g, w, self.clip_by_unit)
                decay = 0.0 if name in self.no_decay else self.weight_decay
                params[name] = rule(name, w, g, decay, rate)
        if self.ema_momentum is not None:
            self.average = moving_average(
                self.average, params, self.ema_momentum
            )
        return params

    def _you2017(self, name, w, g, decay, rate):
        local = self._local_of_gradient(name, w, g, decay)
        return self._rate_inside(name, w, g + decay * w, local, rate)

    def _optax(self, name, w, g, decay, rate):
        d = g + decay * w
        local = self._local(name, w, d, self._norm(d), self.trust_coefficient)
        return self._rate_inside(name, w, d, local, rate)

    def _timm(self, name, w, g, decay, rate):
        mu = self.momentum
        d = g + decay * w
        local = self._local_of_gradient(name, w, g, decay)
        self.buf[name] = mu * self.buf[name] + local * d
        if self.nesterov:
            return w - rate * (local * d + mu * self.buf[name])
        return w - rate * self.buf[name]

    def _model_garden(self, name, w, g, decay, rate):
        mu = self.momentum
        d = g + decay * w
        self.buf[name] = mu * self.buf[name] + d
        u = d + mu * self.buf[name] if self.nesterov else self.buf[name]
        local = self._local(name, w, u, self._norm(u), self.trust_coefficient)
        return w - rate * local * u

    def _you2020(self, name, w, g, decay, rate):
        mu = self.momentum
        d = g + decay * w
        self.buf[name] = mu * self.buf[name] + (1.0 - mu) * d
        u = self.buf[name]
        local = self._local(name, w, u, self._norm(u), 1.0)
        return w - rate * local * u

    def _rate_inside(self, name, w, d, local, rate):
        """Momentum of you2017 and optax: lr scales what enters the buffer."""
        mu = self.momentum
        self.buf[name] = mu * self.buf[name] + rate * local * d
        if self.nesterov:
            return w - (mu * self.buf[name] + rate * local * d)
        return w - self.buf[name]

    def _local_of_gradient(self, name, w, g, decay):
        """Local rate of you2017 and timm: |g| + lambda |w| below the line."""
        below = self._norm(g) + decay * self._norm(w)
        return self._local(name, w, g, below, self.trust_coefficient)

    def _local(self, name, w, tested, below, eta):
        """eta phi(|w|) / (below + epsilon), or 1; kept in `trust_ratios`."""
        if (
            name in self.no_adapt
            or self._norm(w) == 0.0
            or self._norm(tested) == 0.0
        ):
            local = 1.0
        else:
            above = phi(self._norm(w), self.phi_bounds)
            local = eta * above / (below + self.epsilon)
            local = bounded(local, self.trust_ratio_bounds)
        self.trust_ratios[name] = local
        return local

    def _norm(self, z):
        return norm_of(z, self.norm)
