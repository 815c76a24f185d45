"""Calls of the public names, as a user's type checker sees them.

Not a test that runs: `make lint` has mypy check this file. Each line of the
second function has to be an error, since mypy reports a `type: ignore` that is
not needed.
"""

from __future__ import annotations

import numpy as np

import tf_lamb
from tf_lamb import callbacks, exclusion, rules, schedules


def right() -> None:
    """Typed as documented."""
    optimizer = tf_lamb.LAMB(
        tf_lamb.WarmupPolynomial(0.01, total_steps=100, warmup_steps=10),
        weight_decay=0.01,
        exclude_from_weight_decay=["bias"],
        phi_bounds=(0.0, 10.0),
        trust_ratio_bounds=(0.01, 10.0),
        form="apex",
        grad_averaging=False,
    )
    ratios: dict[str, float] = optimizer.trust_ratios
    decays: bool = optimizer.treatments["dense/kernel"].decay
    lines: str = optimizer.describe()
    tf_lamb.LARS(lambda: 0.1, form="optax", nesterov=True, clipnorm=1.0)

    # NumPy is one of the modules that the rules take.
    one = np.ones(3)
    step = rules.lamb(np, one, one, one, one, 1.0, learning_rate=0.1)
    rules.lars(np, step.param, one, one, learning_rate=0.1)
    rate = schedules.WarmupPolynomial(0.1, total_steps=10)(3)
    schedules.rewarmup(np, rate, [schedules.WarmupPolynomial(0.1, 10)], [10])
    peak: float = schedules.untuned_bert(512).learning_rate
    paths = list(ratios)
    treatments = exclusion.resolve(paths, ["bias"], None)
    exclusion.describe([(3,)], treatments)
    found: list[object] = tf_lamb.find_optimizers(optimizer)
    ratios = tf_lamb.find_optimizer(found[0]).trust_ratios
    callbacks.TrustRatioLogger("ratios.csv", every=int(peak + decays))
    print(lines)


def wrong() -> None:
    """Every call has one wrong argument."""
    tf_lamb.LAMB("0.1")  # type: ignore[arg-type]
    tf_lamb.LAMB(0.1, exclude_from_weight_decay=3)  # type: ignore[arg-type]
    tf_lamb.LARS(form=2)  # type: ignore[arg-type]
    tf_lamb.WarmupPolynomial(0.1)  # type: ignore[call-arg]
    rules.lamb(exclusion, 1, 1, 0, 0, 1, learning_rate=1)  # type: ignore[arg-type]
    schedules.untuned_bert("512")  # type: ignore[arg-type]
