"""LAMB as other libraries publish it: float64 NumPy, transcribed to be read.

Each class follows the source that it names, line by line and with its names,
and nothing else: not the paper, not `lamb.py`, not this repository's rules.
(LANS has a paper, from which `lans.py` is written.)

apex and DeepSpeed run on GPUs only, and ALBERT on TensorFlow 1 only, so that
these transcriptions stand for them. apex' kernel was read in the copy that
ColossalAI 0.5.0 publishes (`multi_tensor_lamb_kernel.cu` and `fused_lamb.py`,
"modified from" apex), DeepSpeed in the source distribution 0.19.8
(`fused_lamb_cuda_kernel.cu`, `fused_lamb.py`), the kernel that LANS' authors
added to apex in the copy that RAF publishes (`multi_tensor_lans.cu`). timm and
Keras run beside them in `tests/keras3/test_lamb_forms.py`.
"""

from __future__ import annotations

import numpy as np

from .lans import LANS
from .peer import Peer


class ApexFusedLAMB(Peer):
    """apex `FusedLAMB`, `adam_w_mode=True`; NVLAMB with `use_nvlamb`."""

    defaults = {
        "epsilon": 1e-6,
        "grad_averaging": True,
        "global_clipnorm": 1.0,  # max_grad_norm
        "use_nvlamb": False,
    }

    def _step(self, name, p, g, lr, decay, global_grad_norm):
        beta1, beta2 = self.beta_1, self.beta_2
        bias_correction1 = bias_correction2 = 1.0
        if self.bias_correction:
            bias_correction1 = 1 - beta1**self.t
            bias_correction2 = 1 - beta2**self.t
        beta3 = 1 - beta1 if self.grad_averaging else 1.0
        max_grad_norm = self.global_clipnorm
        # Stage 1
        clipped_global_grad_norm = (
            global_grad_norm / max_grad_norm
            if global_grad_norm > max_grad_norm
            else 1.0
        )
        scaled_grad = g / clipped_global_grad_norm
        self.m[name] = self.m[name] * beta1 + beta3 * scaled_grad
        self.v[name] = (
            self.v[name] * beta2 + (1 - beta2) * scaled_grad * scaled_grad
        )
        next_m_unbiased = self.m[name] / bias_correction1
        next_v_unbiased = self.v[name] / bias_correction2
        denom = np.sqrt(next_v_unbiased) + self.epsilon
        update = next_m_unbiased / denom + decay * p
        # Stage 2
        ratio = lr
        if self.use_nvlamb or decay != 0.0:
            param_norm, update_norm = map(np.linalg.norm, (p, update))
            ratio = (
                lr * (param_norm / update_norm)
                if update_norm != 0.0 and param_norm != 0.0
                else lr
            )
        self.trust_ratios[name] = ratio / lr
        return p - ratio * update


class ApexNVLAMB(ApexFusedLAMB):
    """apex `FusedLAMB(use_nvlamb=True)`."""

    defaults = {**ApexFusedLAMB.defaults, "use_nvlamb": True}


class DeepSpeedFusedLamb(Peer):
    """DeepSpeed `FusedLamb`, `eps_inside_sqrt=False`, no clipping.

    The moments are not corrected: the step is, outside the ratio.
    """

    defaults = {
        "epsilon": 1e-8,
        "trust_ratio_bounds": (0.01, 10.0),  # min_coeff, max_coeff
    }

    def _step(self, name, p, scaled_grad, lr, decay, norm):
        b1, b2 = self.beta_1, self.beta_2
        min_coeff, max_coeff = self.trust_ratio_bounds
        step_size = lr
        if self.bias_correction:
            bias_correction1 = 1 - b1**self.t
            bias_correction2 = 1 - b2**self.t
            step_size = lr * np.sqrt(bias_correction2) / bias_correction1
        self.m[name] = b1 * self.m[name] + (1 - b1) * scaled_grad
        self.v[name] = b2 * self.v[name] + (1 - b2) * scaled_grad * scaled_grad
        denom = np.sqrt(self.v[name]) + self.epsilon
        update = self.m[name] / denom + decay * p
        reg_w, reg_u = np.linalg.norm(p), np.linalg.norm(update)
        lamb_coeff = 1.0
        if reg_w != 0 and reg_u != 0:
            lamb_coeff = reg_w / reg_u
            if lamb_coeff > max_coeff:
                lamb_coeff = max_coeff
            if lamb_coeff < min_coeff:
                lamb_coeff = min_coeff
        self.trust_ratios[name] = lamb_coeff
        return p - step_size * lamb_coeff * update


class AlbertLAMB(Peer):
    """`LAMBOptimizer` of google-research/albert, `lamb_optimizer.py`.

    A variable of `exclude_from_weight_decay` is excluded from adaptation too,
    as there where `exclude_from_layer_adaptation` is not given.
    """

    defaults = {"epsilon": 1e-6}

    def _step(self, name, param, grad, lr, decay, norm):
        next_m = self.beta_1 * self.m[name] + (1.0 - self.beta_1) * grad
        next_v = self.beta_2 * self.v[name] + (1.0 - self.beta_2) * grad**2
        self.m[name], self.v[name] = next_m, next_v
        update = next_m / (np.sqrt(next_v) + self.epsilon)
        if name not in self.no_decay:
            update = update + decay * param
        ratio = 1.0
        if name not in self.no_decay:
            w_norm, g_norm = map(np.linalg.norm, (param, update))
            if w_norm > 0 and g_norm > 0:
                ratio = w_norm / g_norm
        self.trust_ratios[name] = ratio
        return param - ratio * lr * update


class TimmLamb(Peer):
    """timm 1.0.31 `Lamb`, `_single_tensor_lamb`.

    `trust_clip` and `decoupled_decay` are those of timm's `lambc` and `lambw`.
    """

    defaults = {
        "epsilon": 1e-6,
        "grad_averaging": True,
        "global_clipnorm": 1.0,  # max_grad_norm
        "always_adapt": False,
        "trust_clip": False,
        "decoupled_decay": False,
        "cautious": False,  # caution
    }

    def _step(self, name, p, grad, lr, weight_decay, global_norm):
        beta1, beta2 = self.beta_1, self.beta_2
        beta3 = 1 - beta1 if self.grad_averaging else 1.0
        bias_correction1 = bias_correction2 = 1.0
        if self.bias_correction:
            bias_correction1 = 1 - beta1**self.t
            bias_correction2 = 1 - beta2**self.t
        if self.global_clipnorm is not None:
            grad = grad / max(global_norm / self.global_clipnorm, 1.0)
        self.m[name] = beta1 * self.m[name] + beta3 * grad
        self.v[name] = beta2 * self.v[name] + (1 - beta2) * grad * grad
        denom = np.sqrt(self.v[name]) / bias_correction2**0.5 + self.epsilon
        update = (self.m[name] / bias_correction1) / denom
        if self.cautious:
            mask = (update * grad > 0).astype(grad.dtype)
            mask /= max(np.mean(mask), 1e-3)
            update = update * mask
        if weight_decay != 0:
            if self.decoupled_decay:
                p = p - lr * weight_decay * p
            else:
                update = update + weight_decay * p
        trust_ratio = 1.0
        if weight_decay != 0 or self.always_adapt:
            w_norm, g_norm = map(np.linalg.norm, (p, update))
            if w_norm > 0 and g_norm > 0:
                trust_ratio = w_norm / g_norm
            if self.trust_clip:
                trust_ratio = min(trust_ratio, 1.0)
        self.trust_ratios[name] = trust_ratio
        return p - lr * trust_ratio * update


class TimmLambc(TimmLamb):
    """timm's `lambc`."""

    defaults = {**TimmLamb.defaults, "trust_clip": True}


class TimmLambw(TimmLamb):
    """timm's `lambw`."""

    defaults = {**TimmLamb.defaults, "decoupled_decay": True}


class KerasLamb(Peer):
    """`keras.optimizers.Lamb` of Keras 3.15.1 and its base class' decay."""

    defaults = {"epsilon": 1e-7}

    def _step(self, name, variable, gradient, lr, decay, norm):
        if decay:
            variable = variable - variable * decay * lr
        m, v = self.m[name], self.v[name]
        m = m + (gradient - m) * (1 - self.beta_1)
        v = v + (gradient**2 - v) * (1 - self.beta_2)
        self.m[name], self.v[name] = m, v
        m_t_hat = m / (1.0 - self.beta_1**self.t)
        v_sqrt = np.sqrt(v / (1.0 - self.beta_2**self.t)) + self.epsilon
        update = m_t_hat / v_sqrt
        w_norm, g_norm = map(np.linalg.norm, (variable, update))
        ratio = w_norm / g_norm if w_norm > 0 and g_norm > 0 else 1.0
        self.trust_ratios[name] = ratio
        return variable - ratio * lr * update


class ApexFusedLANS(Peer):
    """`FusedLANS` of szhengac/apex, `adam_w_mode=True`, by the paper's authors.

    Unlike the paper, it adds epsilon to the norm of a gradient.
    """

    defaults = {"epsilon": 1e-6}

    def _step(self, name, p, g, lr, decay, norm):
        beta1, beta2, epsilon = self.beta_1, self.beta_2, self.epsilon
        beta3 = 1 - beta1
        beta1_correction = beta2_correction = 1.0
        if self.bias_correction:
            beta1_correction = 1 - beta1**self.t
            beta2_correction = 1 - beta2**self.t
        grad_norm = np.linalg.norm(g)
        # Stage 1
        scaled_grad = g
        if grad_norm != 0.0:
            scaled_grad = g / (grad_norm + epsilon)
        self.m[name] = self.m[name] * beta1 + beta3 * scaled_grad
        self.v[name] = (
            self.v[name] * beta2 + (1 - beta2) * scaled_grad * scaled_grad
        )
        next_m_unbiased = self.m[name] / beta1_correction
        next_v_unbiased = self.v[name] / beta2_correction
        denom = np.sqrt(next_v_unbiased) + epsilon
        scaled_p = decay * p
        update_m = next_m_unbiased / denom + scaled_p
        update_g = scaled_grad / denom + scaled_p
        # Stage 2
        param_norm, update_m_norm, update_g_norm = map(
            np.linalg.norm, (p, update_m, update_g)
        )
        ratio_m = ratio_g = lr
        if update_m_norm != 0.0 and param_norm != 0.0:
            ratio_m = lr * (param_norm / update_m_norm)
        if update_g_norm != 0.0 and param_norm != 0.0:
            ratio_g = lr * (param_norm / update_g_norm)
        self.trust_ratios[name] = ratio_m / lr
        return p - ratio_m * beta1 * update_m - ratio_g * beta3 * update_g


# Form of `LAMB(form=...)` -> what it is held against.
PEERS = {
    "albert": AlbertLAMB,
    "apex": ApexFusedLAMB,
    "deepspeed": DeepSpeedFusedLamb,
    "keras": KerasLamb,
    "lambc": TimmLambc,
    "lambw": TimmLambw,
    "lans": LANS,
    "nvlamb": ApexNVLAMB,
    "timm": TimmLamb,
}
