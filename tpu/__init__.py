"""Cloud TPU: jobs on TPUEstimator, and a planner that compiles for a pod."""
