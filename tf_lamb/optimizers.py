"""LAMB and LARS: their arguments.

`rules.py` has the equations; `update.py` has the steps between gradients and
these equations. `keras3.py`, `keras2.py` and `v1.py` derive their optimizers
from these classes: same arguments, same numbers.
"""

from __future__ import annotations

import inspect
import textwrap
import warnings
from typing import Any, Callable, ClassVar, Sequence

from tf_lamb import arguments, check
from tf_lamb.averages import Variable
from tf_lamb.exclusion import Patterns, Treatment
from tf_lamb.groups import Group
from tf_lamb.hyperparameters import LAMB_FORMS, Hyper, Lamb, Lars
from tf_lamb.layer_adaptive import LayerAdaptive
from tf_lamb.update import Clipping

_BASE_ARGUMENTS = """
      exclude_from_weight_decay: regexes of variables without weight decay,
        searched in the full path (`dense/bias`); or "biases_and_norms": all of
        rank 0 and 1, and those of higher rank that are called bias, beta,
        gamma, scale or offset. None and `[]`: all variables decay.
      exclude_from_layer_adaptation: regexes of variables whose trust ratio is
        1, or "biases_and_norms". None: the same as `exclude_from_weight_decay`;
        `[]`: all are adapted.
      groups: a list of `tf_lamb.Group`: another rate, decay, constants or
        granularity of the trust ratio for the variables that a regex matches,
        of which the first that matches holds. None: all are treated alike.
      name: name of the optimizer and of its variables' scope; None: the class';
        on Keras 3 the second optimizer in a process is then `LAMB_1`, as Keras
        numbers its own, so that a `MultiOptimizer` can hold both.
      norm: "l2", "l1" or "linf".
      phi_bounds: `(gamma_l, gamma_u)` of `phi(z) = min(max(z, gamma_l),
        gamma_u)`; None for `phi(z) = z`.
      trust_ratio_bounds: `(low, high)`: a trust ratio (LARS: a local rate)
        beyond them is the nearer of the two, so that a step's length is no
        longer `learning_rate * phi(|x|)`; None for no bounds, `math.inf` for
        none above. A ratio that is 1 because a norm is 0, or by exclusion,
        stays 1.
      clip_by_unit: adaptive gradient clipping, a number > 0 (Brock et al. 2021,
        arXiv:2102.06171, tried 0.01 to 0.16): the gradient of each unit, all
        that leads to one place on a variable's last axis, is at most so long as
        this share of the norm of its weights, or of 0.001 if that is more; a
        bias is one unit. It acts after `global_clipnorm`, and not together with
        `clipnorm` or `clipvalue`. None: it does not.
      skip_nonfinite: a step whose gradients' sum of squares is not finite in
        float32 (a NaN, an infinity, a norm above 1.8e19) changes no weight, no
        moment and no average, and is counted in `skipped_steps`. With clipping,
        all that is finite is clipped and not skipped, as far as the factor of
        `clipnorm` and `global_clipnorm` is above 1.2e-38. The count `t`
        of the bias correction does not include it; the schedule's step does.
        On Keras 3 `t` is `iterations - skipped_steps + 1`: setting `iterations`
        sets it, and below `skipped_steps` that count begins at 0 again. On
        tf_keras `t` is a count of its own. It is never below 1.
      moment_dtype: how moments are stored: None or "float32", or "bfloat16",
        which halves their memory and traffic (arithmetic stays float32; they
        are rounded by chance, because a moment that decays slowly would stand
        still if it were rounded to nearest). Moments of float64 variables are
        float64.
      jit_compile: on TensorFlow, compile the update by XLA, one kernel for each
        distinct shape. False runs the same operations uncompiled.
      unmatched: what a regex that matches no variable does: "warn", "raise" or
        "ignore". A list of which none matches raises, unless "ignore"; so does
        a frozen group without a variable.
      **kwargs: the arguments of `keras.optimizers.Optimizer`: `clipnorm`,
        `clipvalue`, `global_clipnorm` (all act on the gradients summed over
        replicas and averaged over accumulated micro-batches), `use_ema`,
        `ema_momentum`, `ema_overwrite_frequency` (averages are kept in float32
        for narrower variables, and rounded to nearest when they are assigned),
        `gradient_accumulation_steps` (sums are float32 likewise),
        `loss_scale_factor` (gradients are divided by it; a loop of one's own
        differentiates `optimizer.scale_loss(loss)`). `lr` and LAMB's
        `weight_decay_rate`, old names of tfa, are deprecated: release 0.4.0
        removes them; write `learning_rate` and `weight_decay`.

    The update of a float64 variable is in float64: moments, norms, decay,
    clipping, averages. Its rate is as exact as Keras gives it: float32 (Keras'
    `floatx`) for a number or a schedule, float64 for a function that returns a
    Python number. `trust_ratios` are shown in float32.

    Once the optimizer is built, `learning_rate` and a `weight_decay` that is a
    number can be set, and count from the next step on (on JAX, `learning_rate`
    only); setting another hyperparameter raises AttributeError.

    Raises:
      ValueError: a hyperparameter outside its range, a regex that does not
        compile, or (when the variables are known) regexes that match none, or a
        variable of whole or complex numbers.
"""


class LAMB(LayerAdaptive):
    r"""Layer-wise adaptive moments for batch training.

    $$x_{t+1} = x_t - \eta_t \frac{\phi(\|x_t\|)}{\|u_t\|} u_t,\qquad
      u_t = \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon} + \lambda x_t$$

    `tf_lamb.rules.lamb` has all equations. The arguments up to `name` are those
    of `tfa.optimizers.LAMB`, in its order and with its defaults.

    Args:
      learning_rate: float >= 0, schedule, or function of no arguments that is
        called at each step (where the step is compiled, while it is traced: let
        it read a variable). A LAMB rate is a relative step: 1e-3 moves an
        adapted tensor by a thousandth of its norm.
      beta_1: decay of the first moment, in [0, 1).
      beta_2: decay of the second moment, in [0, 1).
      epsilon: > 0, added to the root of the second moment; None: the form's,
        for the paper's 1e-6.
      weight_decay: `lambda` >= 0, inside the trust ratio: a number, a schedule,
        or a function of no arguments, as the learning rate; None: the form's,
        for the paper's 0, as in tfa and optax. The paper's runs use 0.01.
      form: "paper"; or LAMB as another library has it, with what it has by
        default: "albert", "apex", "nvlamb" (apex' `use_nvlamb`), "timm",
        "lambc", "lambw" (timm's), "deepspeed" or "keras"; or "lans", LAMB's
        successor of 2020. `tf_lamb.hyperparameters.LAMB_FORMS` says what each
        is; "apex", "nvlamb" and timm's three clip (`global_clipnorm=1.0`),
        unless another limit is given or `global_clipnorm=None`.
      bias_correction: False drops the bias correction; None: the form's, True
        but for "albert".
      grad_averaging: False adds `g`, not `(1 - beta_1) g`, to the first moment.
      cautious: True drops the elements of Adam's direction whose sign is not
        that of the gradient, before the weight decay is added, and divides the
        others by the share of those that are left, so that the direction is
        about as long as before (Liang et al. 2024, arXiv:2411.16085; timm's
        `caution`). In every form but "lans".
      nesterov: None, "nadam" or "nadam_both": look-ahead of the first moment,
        or of both (`tf_lamb.rules.lamb`).
    {base_arguments}

    Example:
      >>> import keras, numpy as np, tf_lamb
      >>> model = keras.Sequential(
      ...     [keras.Input((3,)), keras.layers.Dense(2, name="head")],
      ...     name="net",
      ... )
      >>> optimizer = tf_lamb.LAMB(
      ...     0.01, weight_decay=0.01, exclude_from_weight_decay=["bias"]
      ... )
      >>> model.compile(optimizer, "mse")
      >>> history = model.fit(np.ones((8, 3)), np.ones((8, 2)), verbose=0)
      >>> print(optimizer.describe())
      variable         shape  decay  adapt
      net/head/kernel  3x2    yes    yes
      net/head/bias    2      no     no

    References:
      You et al. 2020, "Large Batch Optimization for Deep Learning: Training
      BERT in 76 minutes" (arXiv:1904.00962), Algorithm 2.
    """

    _HYPER: ClassVar[type[Hyper]] = Lamb
    _SLOTS: ClassVar[Sequence[str]] = ("m", "v")

    beta_1: float
    beta_2: float
    epsilon: float
    form: str
    bias_correction: bool
    grad_averaging: bool
    cautious: bool
    nesterov: str | None
    norm: str
    phi_bounds: tuple[float, float] | None
    trust_ratio_bounds: tuple[float, float] | None
    clip_by_unit: float | None

    def __init__(
        self,
        learning_rate: float | Callable[..., Any] = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | None = None,
        weight_decay: float | Callable[..., Any] | None = None,
        exclude_from_weight_decay: Patterns = None,
        exclude_from_layer_adaptation: Patterns = None,
        name: str | None = None,
        *,
        form: str = "paper",
        bias_correction: bool | None = None,
        grad_averaging: bool = True,
        cautious: bool = False,
        nesterov: str | None = None,
        norm: str = "l2",
        phi_bounds: tuple[float, float] | None = None,
        trust_ratio_bounds: tuple[float, float] | None = None,
        clip_by_unit: float | None = None,
        skip_nonfinite: bool = True,
        moment_dtype: str | None = None,
        jit_compile: bool = True,
        unmatched: str = "warn",
        groups: Sequence[Group] | None = None,
        **kwargs: Any,
    ) -> None:
        if "weight_decay_rate" in kwargs:
            warnings.warn(
                arguments.renamed("weight_decay_rate", "weight_decay"),
                FutureWarning,
                stacklevel=2,
            )
            weight_decay = kwargs.pop("weight_decay_rate")
        own = LAMB_FORMS[check.one_of("form", form, tuple(LAMB_FORMS))]
        bounds = check.bounds("trust_ratio_bounds", trust_ratio_bounds)
        own.check_fixed(
            form,
            bias_correction=bias_correction,
            grad_averaging=grad_averaging,
            nesterov=nesterov,
            trust_ratio_bounds=bounds,
        )
        hyper = Lamb(
            beta_1,
            beta_2,
            own.default("epsilon", epsilon),
            own.default("bias_correction", bias_correction),
            nesterov,
            norm,
            phi_bounds,
            own.default("trust_ratio_bounds", bounds),
            form,
            grad_averaging,
            cautious,
            clip_by_unit,
        )
        arguments.check_limits(clip_by_unit, kwargs)
        if all(kwargs.get(limit) is None for limit in Clipping._fields):
            if own.global_clipnorm is not None:
                kwargs.setdefault("global_clipnorm", own.global_clipnorm)
        super().__init__(
            learning_rate,
            hyper,
            weight_decay=own.default("weight_decay", weight_decay),
            exclude_from_weight_decay=exclude_from_weight_decay,
            exclude_from_layer_adaptation=arguments.not_adapted(
                form, exclude_from_weight_decay, exclude_from_layer_adaptation
            ),
            unmatched=unmatched,
            groups=groups,
            skip_nonfinite=skip_nonfinite,
            moment_dtype=moment_dtype,
            jit_compile=jit_compile,
            name=name,
            **kwargs,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        is_made = name == "form" and "form" in vars(self)
        if is_made and not getattr(self, "built", False):
            value = self._checks[name](name, value)
            if value != self.form:
                raise AttributeError(
                    f"form: it stays {self.form!r}, since defaults come with "
                    f"it, got {check.shown(value)}; make a new optimizer."
                )
        super().__setattr__(name, value)

    def _resolve(self, variables: Sequence[Variable]) -> tuple[Treatment, ...]:
        treatments = super()._resolve(variables)
        own = LAMB_FORMS[self.form]
        fixed = {name: getattr(self, name) for name in own.fixed}
        own.check_fixed(self.form, **fixed)
        if own.undecayed != "not_adapted":
            return treatments
        return tuple(t._replace(adapt=t.adapt and t.decay) for t in treatments)


class LARS(LayerAdaptive):
    r"""Layer-wise adaptive rate scaling, in any of the forms in use.

    $$x_{t+1} = x_t - m_t,\qquad m_t = \mu m_{t-1} + \eta_t
      \frac{c \|x_t\|}{\|g_t\| + \lambda \|x_t\| + \epsilon}
      (g_t + \lambda x_t)$$

    is the form of the 2017 paper; `tf_lamb.rules.lars` has all five in a table.

    Args:
      learning_rate: float >= 0, schedule, or function of no arguments that is
        called at each step (where the step is compiled, while it is traced: let
        it read a variable).
      momentum: `mu`, in [0, 1).
      weight_decay: `lambda` >= 0, a number, a schedule or a function, as the
        learning rate; leave L2 out of the loss then.
      trust_coefficient: `c` > 0.
      epsilon: >= 0, added to the denominator.
      form: "you2017" (the 2017 paper, TF contrib, MLPerf), "optax" (also Model
        Garden's default, `classic_momentum=True`), "timm", "model_garden"
        (Model Garden with `classic_momentum=False`) or "you2020" (Algorithm 1
        of the LAMB paper; no trust coefficient). "you2017" and "timm" differ
        only where the learning rate changes; "model_garden" and "you2020"
        differ only by the trust coefficient and on variables that are not
        adapted. Between other pairs, a learning rate that suits one form need
        not suit the other.
      nesterov: Nesterov momentum; not defined for "you2020".
    {base_arguments}

    Example:
      >>> import keras, numpy as np, tf_lamb
      >>> weight = keras.Variable(np.ones(4), dtype="float32", name="weight")
      >>> optimizer = tf_lamb.LARS(learning_rate=1.0, trust_coefficient=0.001)
      >>> optimizer.apply([keras.ops.ones(4) / 2], [weight])

      The norms are `|x| = 2` and `|g| = 1`, so the local rate is 0.001 * 2 / 1:

      >>> round(optimizer.trust_ratios["weight"], 6)
      0.002
      >>> [round(float(x), 6) for x in keras.ops.convert_to_numpy(weight)]
      [0.999, 0.999, 0.999, 0.999]

    References:
      You, Gitman, Ginsburg 2017, "Large Batch Training of Convolutional
      Networks" (arXiv:1708.03888), Algorithm 1; You et al. 2020
      (arXiv:1904.00962), Algorithm 1.
    """

    _HYPER: ClassVar[type[Hyper]] = Lars
    _SLOTS: ClassVar[Sequence[str]] = ("momentum",)

    momentum: float
    trust_coefficient: float
    epsilon: float
    form: str
    nesterov: bool
    norm: str
    phi_bounds: tuple[float, float] | None
    trust_ratio_bounds: tuple[float, float] | None
    clip_by_unit: float | None

    def __init__(
        self,
        learning_rate: float | Callable[..., Any] = 0.01,
        momentum: float = 0.9,
        weight_decay: float | Callable[..., Any] | None = 0.0,
        exclude_from_weight_decay: Patterns = None,
        exclude_from_layer_adaptation: Patterns = None,
        name: str | None = None,
        *,
        trust_coefficient: float = 0.001,
        epsilon: float = 0.0,
        form: str = "you2017",
        nesterov: bool = False,
        norm: str = "l2",
        phi_bounds: tuple[float, float] | None = None,
        trust_ratio_bounds: tuple[float, float] | None = None,
        clip_by_unit: float | None = None,
        skip_nonfinite: bool = True,
        moment_dtype: str | None = None,
        jit_compile: bool = True,
        unmatched: str = "warn",
        groups: Sequence[Group] | None = None,
        **kwargs: Any,
    ) -> None:
        hyper = Lars(
            momentum,
            trust_coefficient,
            epsilon,
            form,
            nesterov,
            norm,
            phi_bounds,
            trust_ratio_bounds,
            clip_by_unit,
        )
        arguments.check_limits(clip_by_unit, kwargs)
        super().__init__(
            learning_rate,
            hyper,
            weight_decay=weight_decay,
            exclude_from_weight_decay=exclude_from_weight_decay,
            exclude_from_layer_adaptation=exclude_from_layer_adaptation,
            unmatched=unmatched,
            groups=groups,
            skip_nonfinite=skip_nonfinite,
            moment_dtype=moment_dtype,
            jit_compile=jit_compile,
            name=name,
            **kwargs,
        )


for _optimizer in (LAMB, LARS):
    if _optimizer.__doc__:  # python -OO strips docstrings
        # Without its indentation, as Python 3.13 keeps it anyway.
        _optimizer.__doc__ = inspect.cleandoc(_optimizer.__doc__).replace(
            "{base_arguments}", textwrap.dedent(_BASE_ARGUMENTS).strip("\n")
        )
