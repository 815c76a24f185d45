"""LAMB with a trust ratio of each filter in place of each variable's."""

import tf_lamb
from tf_lamb import arithmetic


def _norms(ops, kind, x, function=None, arrays=()):
    """2-norms of the slices of the last axis; of a vector, the whole one's."""
    axes = tuple(range(max(1, len(x.shape) - 1)))
    return ops.sqrt(ops.sum(ops.square(arithmetic.widen(ops, x)), axis=axes))


class LambByFilter(tf_lamb.LAMB):
    r"""LAMB whose "layers" are the filters: slices of a kernel's last axis.

    $$x_{t+1,f} = x_{t,f} - \eta_t \frac{\phi(\|x_{t,f}\|)}{\|u_{t,f}\|}
      u_{t,f}$$

    with `u` of `tf_lamb.rules.lamb`, which is the same elementwise. Its
    `trust_ratios` are the means over a variable's filters.
    """

    _norm_of = staticmethod(_norms)
