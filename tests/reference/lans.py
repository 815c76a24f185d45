"""A naive LANS: float64 NumPy, written from the paper to be read."""

from __future__ import annotations

import numpy as np

from .lamb import bounded, norm_of, phi
from .peer import Peer


class LANS(Peer):
    """LANS, one block a variable.

    g     = g / |g|                                       (0 for g = 0)
    m     = beta_1 m + (1 - beta_1) g
    v     = beta_2 v + (1 - beta_2) g^2
    m_hat = m / (1 - beta_1^t),  v_hat = v / (1 - beta_2^t)
    r     = m_hat / (sqrt(v_hat) + epsilon)
    c     = g / (sqrt(v_hat) + epsilon)
    d     = beta_1 phi(|x|) / |r + lambda x| (r + lambda x)
            + (1 - beta_1) phi(|x|) / |c + lambda x| (c + lambda x)
    x     = x - lr d

    A ratio is 1 where a norm of its fraction is 0, and both are for the
    variables of `no_adapt`. What the paper does not have are options: no bias
    correction, another norm (of g, x, r and c alike), bounds of a ratio.

    References:
        Zheng et al., "Accelerated large batch optimization of BERT pretraining
        in 54 minutes", arXiv:2006.13484, 2020, LANS.
    """

    defaults = {
        "epsilon": 1e-6,
        "norm": "l2",
        "phi_bounds": None,
        "trust_ratio_bounds": None,
        "no_adapt": (),
    }

    def _step(self, name, x, g, lr, decay, norm_of_all):
        length = norm_of(g, self.norm)
        if length > 0:
            g = g / length
        self.m[name] = self.beta_1 * self.m[name] + (1 - self.beta_1) * g
        self.v[name] = self.beta_2 * self.v[name] + (1 - self.beta_2) * g * g
        m_hat, v_hat = self.m[name], self.v[name]
        if self.bias_correction:
            m_hat = m_hat / (1 - self.beta_1**self.t)
            v_hat = v_hat / (1 - self.beta_2**self.t)
        r = m_hat / (np.sqrt(v_hat) + self.epsilon) + decay * x
        c = g / (np.sqrt(v_hat) + self.epsilon) + decay * x
        d = self.beta_1 * self._ratio(name, x, r) * r
        d = d + (1 - self.beta_1) * self._ratio(name, x, c) * c
        self.trust_ratios[name] = self._ratio(name, x, r)
        return x - lr * d

    def _ratio(self, name, x, u):
        lengths = norm_of(x, self.norm), norm_of(u, self.norm)
        if name in self.no_adapt or 0.0 in lengths:
            return 1.0
        ratio = phi(lengths[0], self.phi_bounds) / lengths[1]
        return bounded(ratio, self.trust_ratio_bounds)
