"""The schedules of `schedules.py` as classes, without a Keras.

`keras3.py` and `keras2.py` make learning-rate schedules of them; they provide
the array functions `_ops`, `_serialize` and `_deserialize`.
"""

from typing import Any, Callable, Sequence

from tf_lamb import check, schedules


class WarmupPolynomial:
    """Linear warmup, then polynomial decay: `schedules.warmup_polynomial`.

    Args:
      learning_rate: peak rate, >= 0.
      total_steps: step at which the decay ends.
      warmup_steps: length of the warmup, at most `total_steps`.
      end_learning_rate: rate from then on.
      power: exponent of the decay, > 0.
      decay_from: "warmup_end" (continuous; the default) or "start" (as the
        published BERT and ALBERT code, with its drop at the warmup's end).
      name: name of the schedule.

    Raises:
      ValueError: an argument outside its range.
    """

    _ops: Any

    def __init__(
        self,
        learning_rate: float,
        total_steps: int,
        warmup_steps: int = 0,
        end_learning_rate: float = 0.0,
        power: float = 1.0,
        decay_from: str = "warmup_end",
        name: str = "WarmupPolynomial",
    ):
        super().__init__()
        self._arguments = dict(
            learning_rate=learning_rate,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            end_learning_rate=end_learning_rate,
            power=power,
            decay_from=decay_from,
        )
        schedules.check_warmup_polynomial(**self._arguments)
        self.name = name

    def __call__(self, step):
        step = self._ops.cast(step, "float32")
        return schedules.warmup_polynomial(self._ops, step, **self._arguments)

    def get_config(self):
        return dict(self._arguments, name=self.name)


class Rewarmup:
    """Schedules in a row, each from its own step 0: `schedules.rewarmup`.

    Args:
      phases: `WarmupPolynomial` (or other) schedules.
      phase_steps: length of each phase, whole numbers > 0.
      name: name of the schedule.

    Raises:
      ValueError: no phase, or as many lengths as phases are not given.
    """

    _ops: Any
    _serialize: Callable
    _deserialize: Callable

    def __init__(
        self,
        phases: Sequence[Callable],
        phase_steps: Sequence[int],
        name: str = "Rewarmup",
    ):
        super().__init__()
        if not phases or len(phases) != len(phase_steps):
            raise ValueError(
                "phase_steps: expected one length for each phase and at least "
                f"one phase, got {len(phases)} phases and {phase_steps!r}."
            )
        self.phases = list(phases)
        self.phase_steps = [check.count("phase_steps", n) for n in phase_steps]
        self.name = name

    def __call__(self, step):
        step = self._ops.cast(step, "float32")
        return schedules.rewarmup(
            self._ops, step, self.phases, self.phase_steps
        )

    def get_config(self):
        return dict(
            phases=[self._serialize(p) for p in self.phases],
            phase_steps=self.phase_steps,
            name=self.name,
        )

    @classmethod
    def from_config(cls, config):
        phases = [cls._deserialize(p) for p in config["phases"]]
        return cls(**{**config, "phases": phases})
