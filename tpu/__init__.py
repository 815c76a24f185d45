"""Cloud TPU: jobs on TPUEstimator, and a planner that compiles for a pod."""

from official_models.common import importing, interrupts

interrupts.end_at_once()
importing.explain()
