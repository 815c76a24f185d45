"""A naive LAMB: float64 NumPy, written from the paper to be read."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from .clipping import GradientPath, Gradients, clip_by_unit

Parameters = dict[str, np.ndarray]


def norm_of(z: np.ndarray, norm: str) -> float:
    """The l2, l1 or linf norm of all elements of z, as one vector."""
    if norm == "l2":
        return float(np.sqrt(np.sum(z * z)))
    if norm == "l1":
        return float(np.sum(np.abs(z)))
    if norm == "linf":
        return float(np.max(np.abs(z), initial=0.0))
    raise ValueError(f"norm: expected 'l2', 'l1' or 'linf', given {norm!r}")


def phi(z: float, bounds: tuple[float, float] | None) -> float:
    """phi(z) = min(max(z, gamma_l), gamma_u), or z without bounds."""
    if bounds is None:
        return z
    gamma_l, gamma_u = bounds
    return min(max(z, gamma_l), gamma_u)


def bounded(ratio: float, bounds: tuple[float, float] | None) -> float:
    """The ratio, or the nearer of (low, high) where it is not between them."""
    if bounds is not None and ratio < bounds[0]:
        return bounds[0]
    if bounds is not None and ratio > bounds[1]:
        return bounds[1]
    return ratio


def rate_at(learning_rate: float | Callable[[int], float], calls: int) -> float:
    """The rate after `calls` earlier calls of `step`, micro-batches too."""
    return learning_rate(calls) if callable(learning_rate) else learning_rate


def moving_average(
    average: Parameters, params: Parameters, decay: float
) -> Parameters:
    """average <- d average + (1 - d) x, and x where there is none yet."""
    if not average:
        return {name: x.copy() for name, x in params.items()}
    return {
        name: decay * average[name] + (1.0 - decay) * x
        for name, x in params.items()
    }


class ReferenceLAMB:
    """LAMB, one trust ratio per variable tensor.

    m     = beta_1 m + (1 - beta_1) g
    v     = beta_2 v + (1 - beta_2) g^2
    m_hat = m / (1 - beta_1^t),  v_hat = v / (1 - beta_2^t)
    u     = m_hat / (sqrt(v_hat) + epsilon) + lambda x
    x     = x - lr phi(|x|) / |u| u

    The ratio phi(|x|) / |u| is 1 where |x| or |u| is 0, and for the variables
    of `no_adapt`. t counts applied updates, of all variables together: it
    moves on also for a variable whose gradient is None.

    Args:
        learning_rate: rate, or a function from the number of earlier calls of
            `step` (micro-batches included) to the rate.
        beta_1: decay of the first moment, in [0, 1).
        beta_2: decay of the second moment, in [0, 1).
        epsilon: added to sqrt(v_hat).
        weight_decay: lambda, coupled: it is part of u and of its norm.
        bias_correction: False leaves out the denominators 1 - beta^t.
        grad_averaging: False adds g, not (1 - beta_1) g, to m, as apex and
            timm do under this name. Not with `nesterov`.
        cautious: m_hat / (sqrt(v_hat) + epsilon) is 0 where its sign is not
            that of g, and elsewhere divided by the share of the elements that
            are left (at least 0.001), before the decay is added.
        nesterov: None; "nadam" looks one step ahead in the first moment,

                m_hat = beta_1 m / (1 - beta_1^(t+1))
                        + (1 - beta_1) g / (1 - beta_1^t);

            "nadam_both" does the same to the second moment, with beta_2, v
            and g^2.
        norm: "l2", "l1" or "linf", of x and of u alike.
        phi_bounds: (gamma_l, gamma_u); None for phi(z) = z.
        trust_ratio_bounds: (low, high) of the ratio itself, or None; a ratio
            that is 1 because a norm is 0 or by `no_adapt` stays 1.
        no_decay: names of variables with lambda = 0.
        no_adapt: names of variables with ratio 1.
        clipnorm: see `clipping.clip`.
        clipvalue: see `clipping.clip`.
        global_clipnorm: see `clipping.clip`.
        clip_by_unit: see `clipping.clip_by_unit`; after the others.
        accumulation_steps: k; every k-th call applies the mean of k gradients.
        ema_momentum: d; after each applied update `average` is x at the first
            one, then d average + (1 - d) x. None keeps no average.
        skip_nonfinite: drop an update whose gradients are not all finite.

    Attributes:
        m: first moments by name, zero at first.
        v: second moments by name, zero at first.
        trust_ratios: last ratio by name, 1 at first.
        average: moving average by name, empty before the first update.
        skipped_steps: number of updates dropped by `skip_nonfinite`.

    References:
        You et al., "Large batch optimization for deep learning: training BERT
        in 76 minutes", ICLR 2020, Algorithm 2. Dozat, "Incorporating Nesterov
        momentum into Adam", 2016, with constant beta_1 (`nesterov`). Liang et
        al., "Cautious optimizers", arXiv:2411.16085, 2024 (`cautious`).
    """

    def __init__(
        self,
        learning_rate: float | Callable[[int], float] = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        bias_correction: bool = True,
        grad_averaging: bool = True,
        cautious: bool = False,
        nesterov: str | None = None,
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
        if nesterov not in (None, "nadam", "nadam_both"):
            raise ValueError(
                "nesterov: expected None, 'nadam' or 'nadam_both', given "
                f"{nesterov!r}"
            )
        norm_of(np.zeros(1), norm)
        self.learning_rate = learning_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.weight_decay = weight_decay
        self.bias_correction = bias_correction
        self.grad_averaging = grad_averaging
        self.cautious = cautious
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
        self.t = 0
        self.m: Parameters = {}
        self.v: Parameters = {}
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
        params = {name: np.array(x, np.float64) for name, x in params.items()}
        for name, x in params.items():
            self.m.setdefault(name, np.zeros_like(x))
            self.v.setdefault(name, np.zeros_like(x))
            self.trust_ratios.setdefault(name, 1.0)

        rate = rate_at(self.learning_rate, self.calls)
        self.calls += 1
        grads = self.gradient_path(grads)
        if grads is None:
            return params

        self.t += 1
        for name, x in params.items():
            if grads[name] is not None:
                params[name] = self._updated(name, x, grads[name], rate)
        if self.ema_momentum is not None:
            self.average = moving_average(
                self.average, params, self.ema_momentum
            )
        return params

    def _updated(
        self, name: str, x: np.ndarray, g: np.ndarray, rate: float
    ) -> np.ndarray:
        g = clip_by_unit(g, x, self.clip_by_unit)
        share = 1.0 - self.beta_1 if self.grad_averaging else 1.0
        m = self.beta_1 * self.m[name] + share * g
        v = self.beta_2 * self.v[name] + (1.0 - self.beta_2) * g * g
        self.m[name] = m
        self.v[name] = v

        m_hat = self._corrected(
            m, g, self.beta_1, self.nesterov in ("nadam", "nadam_both")
        )
        v_hat = self._corrected(
            v, g * g, self.beta_2, self.nesterov == "nadam_both"
        )
        decay = 0.0 if name in self.no_decay else self.weight_decay
        u = m_hat / (np.sqrt(v_hat) + self.epsilon)
        if self.cautious:
            agrees = np.sign(u) * np.sign(g) > 0
            u = np.where(agrees, u, 0.0) / max(np.mean(agrees), 1e-3)
        u = u + decay * x

        self.trust_ratios[name] = self._trust_ratio(name, x, u)
        return x - rate * self.trust_ratios[name] * u

    def _corrected(
        self, moment: np.ndarray, new: np.ndarray, beta: float, look_ahead: bool
    ) -> np.ndarray:
        """Bias correction, with Dozat's look-ahead if asked for."""
        now = following = 1.0
        if self.bias_correction:
            now = 1.0 - beta**self.t
            following = 1.0 - beta ** (self.t + 1)
        if not look_ahead:
            return moment / now
        return beta * moment / following + (1.0 - beta) * new / now

    def _trust_ratio(self, name: str, x: np.ndarray, u: np.ndarray) -> float:
        if name in self.no_adapt:
            return 1.0
        x_norm = norm_of(x, self.norm)
        u_norm = norm_of(u, self.norm)
        if x_norm == 0.0 or u_norm == 0.0:
            return 1.0
        ratio = phi(x_norm, self.phi_bounds) / u_norm
        return bounded(ratio, self.trust_ratio_bounds)
