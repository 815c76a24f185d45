"""LAMB and LARS as `tf.compat.v1.train.Optimizer`, for Estimator and its like.

They work in graph mode (`Session`, `MonitoredTrainingSession`, an Estimator's
`model_fn`), in `tf.function`, and inside `CrossShardOptimizer` or a wrapper
that scales the loss. They use the compiled update of `fused.py`. Nothing here
imports Keras.
"""

from __future__ import annotations

import inspect
import textwrap
from typing import ClassVar, Sequence

import tensorflow as tf

from tf_lamb import check, fused, rules
from tf_lamb.v1_base import LayerAdaptiveOptimizer, Rate

__all__ = ["LAMBOptimizer", "LARSOptimizer"]

_COMMON = """
      exclude_from_weight_decay: regexes of variables without weight decay,
        searched in the full name without `:0`; each has to match a variable of
        the first `apply_gradients`. None and `[]`: all variables decay.
      exclude_from_layer_adaptation: regexes of variables whose trust ratio is
        1. None: the same as `exclude_from_weight_decay`; `[]`: all are adapted.
      norm: "l2", "l1" or "linf".
      phi_bounds: bounds of phi, or None for `phi(z) = z`.
      skip_nonfinite: a step whose gradients' sum of squares is not finite in
        float32 changes nothing but `global_step`, and is counted.
      moment_dtype: None or "float32", or "bfloat16" (`tf_lamb.LAMB` explains
        it; published checkpoints have float32).
      jit_compile: compile the update by XLA, one kernel for each distinct
        shape.
      use_locking: for the base class; updates are ordered anyway.
      name: name of the optimizer.

    The update of a float64 variable is in float64.

    Gradients are not clipped here; use `tf.clip_by_global_norm` before.

    Raises:
      ValueError: a hyperparameter outside its range, or a regex that matches no
        variable.
"""


class LAMBOptimizer(LayerAdaptiveOptimizer):
    r"""LAMB, Algorithm 2: `tf_lamb.rules.lamb` has the equations.

    The count `t` of the bias correction is the optimizer's own count of updates
    that were made; `global_step` is incremented but not read.

    With `bias_correction=False` it is the LAMB of ALBERT's code; if also
    `exclude_from_layer_adaptation=[""]` (every name), it is the AdamW of BERT's
    code. Moments have the names that they have there, so that such a run can be
    resumed.

    Args:
      learning_rate: >= 0, a tensor, or a function of no arguments.
      beta_1: decay of the first moment, in [0, 1).
      beta_2: decay of the second moment, in [0, 1).
      epsilon: > 0, added to the root of the second moment.
      weight_decay: `lambda` >= 0, inside the trust ratio.
      bias_correction: False drops it, as ALBERT's and BERT's code do.
      nesterov: None, "nadam" or "nadam_both" (`tf_lamb.rules.lamb`).
    {common}

    References:
      You et al. 2020 (arXiv:1904.00962), Algorithm 2; google-research/albert
      `lamb_optimizer.py`; google-research/bert `optimization.py`.
    """

    _SLOTS: ClassVar[dict[str, str | None]] = {"m": "adam_m", "v": "adam_v"}

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: float = 0.0,
        exclude_from_weight_decay: Sequence[str] | None = None,
        exclude_from_layer_adaptation: Sequence[str] | None = None,
        name: str = "LAMBOptimizer",
        *,
        bias_correction: bool = True,
        nesterov: str | None = None,
        norm: str = "l2",
        phi_bounds: Sequence[float] | None = None,
        skip_nonfinite: bool = True,
        moment_dtype: str | None = None,
        jit_compile: bool = True,
        use_locking: bool = False,
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            exclude_from_weight_decay=exclude_from_weight_decay,
            exclude_from_layer_adaptation=exclude_from_layer_adaptation,
            norm=norm,
            phi_bounds=phi_bounds,
            skip_nonfinite=skip_nonfinite,
            moment_dtype=moment_dtype,
            jit_compile=jit_compile,
            use_locking=use_locking,
            name=name,
        )
        self._lamb = fused.LambOptions(
            check.decay_rate("beta_1", beta_1),
            check.decay_rate("beta_2", beta_2),
            check.positive("epsilon", epsilon),
            bool(bias_correction),
            check.one_of("nesterov", nesterov, rules.NESTEROV_FORMS),
            self._norm,
            self._phi_bounds,
        )

    def _rule(
        self,
        variable: tf.Variable,
        grad: tf.Tensor,
        slots: Sequence[tf.Variable],
        scalars: tf.Tensor,
        adapt: bool,
    ) -> tf.Tensor:
        m, v = slots
        return fused.lamb(
            variable,
            grad,
            m,
            v,
            scalars,
            adapt=adapt,
            options=self._lamb,
            jit_compile=self._jit_compile,
        )


class LARSOptimizer(LayerAdaptiveOptimizer):
    r"""LARS, in any of the forms in use: `tf_lamb.rules.lars` lists them.

    Args:
      learning_rate: >= 0, a tensor, or a function of no arguments.
      momentum: `mu`, in [0, 1).
      weight_decay: `lambda` >= 0; leave L2 out of the loss then.
      trust_coefficient: `c` > 0.
      epsilon: >= 0, added to the denominator.
      form: one of `tf_lamb.rules.LARS_FORMS`.
      nesterov: Nesterov momentum; not defined for "you2020".
    {common}

    References:
      You, Gitman, Ginsburg 2017 (arXiv:1708.03888), Algorithm 1.
    """

    _SLOTS: ClassVar[dict[str, str | None]] = {"momentum": None}

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        exclude_from_weight_decay: Sequence[str] | None = None,
        exclude_from_layer_adaptation: Sequence[str] | None = None,
        name: str = "LARSOptimizer",
        *,
        trust_coefficient: float = 0.001,
        epsilon: float = 0.0,
        form: str = "you2017",
        nesterov: bool = False,
        norm: str = "l2",
        phi_bounds: Sequence[float] | None = None,
        skip_nonfinite: bool = True,
        moment_dtype: str | None = None,
        jit_compile: bool = True,
        use_locking: bool = False,
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            exclude_from_weight_decay=exclude_from_weight_decay,
            exclude_from_layer_adaptation=exclude_from_layer_adaptation,
            norm=norm,
            phi_bounds=phi_bounds,
            skip_nonfinite=skip_nonfinite,
            moment_dtype=moment_dtype,
            jit_compile=jit_compile,
            use_locking=use_locking,
            name=name,
        )
        if nesterov and form == "you2020":
            raise ValueError(
                "nesterov: not defined for form='you2020'; expected False, or "
                "another form."
            )
        self._lars = fused.LarsOptions(
            check.decay_rate("momentum", momentum),
            check.positive("trust_coefficient", trust_coefficient),
            check.non_negative("epsilon", epsilon),
            check.one_of("form", form, rules.LARS_FORMS),
            bool(nesterov),
            self._norm,
            self._phi_bounds,
        )

    def _rule(
        self,
        variable: tf.Variable,
        grad: tf.Tensor,
        slots: Sequence[tf.Variable],
        scalars: tf.Tensor,
        adapt: bool,
    ) -> tf.Tensor:
        (m,) = slots
        return fused.lars(
            variable,
            grad,
            m,
            scalars,
            adapt=adapt,
            options=self._lars,
            jit_compile=self._jit_compile,
        )


for _optimizer in (LAMBOptimizer, LARSOptimizer):
    if _optimizer.__doc__:  # python -OO strips docstrings
        # Without its indentation, as Python 3.13 keeps it anyway.
        _optimizer.__doc__ = inspect.cleandoc(_optimizer.__doc__).replace(
            "{common}", textwrap.dedent(_COMMON).strip("\n")
        )
