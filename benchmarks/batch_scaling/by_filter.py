"""LAMB with a trust ratio of each filter in place of each variable's."""

from keras import ops

import tf_lamb
from tf_lamb import arithmetic, rules
from tf_lamb.layer_adaptive import LayerAdaptive


class LambByFilter(tf_lamb.LAMB):
    r"""LAMB whose "layers" are the filters: slices of a kernel's last axis.

    $$x_{t+1,f} = x_{t,f} - \eta_t \frac{\phi(\|x_{t,f}\|)}{\|u_{t,f}\|}
      u_{t,f}$$

    with `u` of `tf_lamb.rules.lamb`, which is the same elementwise. A variation
    of the study, uncompiled; of an optimizer in one replica. Its `trust_ratios`
    are the means over a variable's filters.
    """

    # By the equations, not by the compiled kernels, which know one norm each.
    _update_all = LayerAdaptive._update_all

    def _rule(self, param, m, v, grad, treatment, proceed, step, rate):
        betas = dict(beta_1=self.beta_1, beta_2=self.beta_2)
        new_m, new_v = rules.lamb_moments(ops, grad, m, v, step, **betas)
        update = rules.lamb_update(
            ops,
            param,
            grad,
            new_m,
            new_v,
            step,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay if treatment.decay else 0.0,
            bias_correction=self.bias_correction,
            nesterov=self.nesterov,
            **betas,
        )
        ratio = ops.ones((), update.dtype)
        if treatment.adapt:
            ratio = rules.trust_ratio(
                ops,
                _norms(param),
                _norms(update),
                phi_bounds=self.phi_bounds,
            )
        new = rules.descend(ops, param, update, rate * ratio)
        return rules.Step(
            *(
                ops.where(proceed, made, old)
                for made, old in ((new, param), (new_m, m), (new_v, v))
            ),
            ops.mean(ratio),
        )


def _norms(x):
    """2-norms of the slices of the last axis; of a vector, the whole one's."""
    axes = tuple(range(max(1, len(x.shape) - 1)))
    return ops.sqrt(ops.sum(ops.square(arithmetic.widen(ops, x)), axis=axes))
