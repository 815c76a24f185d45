"""Published recipes for large batches, as defaults of the script's flags.

`lamb-B` are the rows of You et al. 2020 (arXiv:1904.00962), table 1, of BERT
large: 512 million sequences, 1,000,000 steps at batch 512. Nine tenths are of
128 tokens, the last tenth of 512; the rate and the warmup of each phase are
those of the paper's untuned rule, `tf_lamb.schedules.untuned_bert`. In
`lamb-65536`, the 76-minute run, the second phase has batch 32,768 and there are
8,599 steps in all. The paper's table of rates ends at 32,768: the rate and
the warmup of the first phase are the rule's at 65,536, and how the steps are
divided is computed here.

`mlperf-B` are reference points of MLPerf Training, `rcps_bert.json` of
github.com/mlcommons/logging (`training_5.0.0`, commit 17b4ee5; read on
2026-11-27): one phase of 512 tokens that begins with a checkpoint,
`--init_checkpoint`. Where those warm up from a step below 0, their rate begins
above 0; here it begins at 0 and reaches its peak at the same step.

`albert` is the published recipe of ALBERT base; what comes with the model, such
as sentence order, is in `families.py`.
"""

from __future__ import annotations

from typing import Any

from absl import flags

from official_models.common.flags import without_effect
from tf_lamb import schedules

FLAGS = flags.FLAGS
_SEQUENCES = 512 * 1_000_000
_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768)
_COMMON = {
    "size": "large",
    "optimizer": "lamb",
    "epsilon": 1e-6,
    "global_clipnorm": 1.0,
}


def _mixed(batch: int, phase2_batch: int, steps: int) -> dict[str, Any]:
    """Nine tenths of the sequences short, one tenth long."""
    first, second = map(schedules.untuned_bert, (batch, phase2_batch))
    return {
        **_COMMON,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "weight_decay": 0.01,
        "steps": steps,
        "global_batch_size": batch,
        "max_seq_length": 128,
        "max_predictions_per_seq": 20,
        "learning_rate": first.learning_rate,
        "warmup_ratio": first.warmup,
        "phase2_steps": _SEQUENCES // 10 // phase2_batch,
        "phase2_global_batch_size": phase2_batch,
        "phase2_max_seq_length": 512,
        "phase2_max_predictions_per_seq": 80,
        "phase2_learning_rate": second.learning_rate,
        "phase2_warmup_ratio": second.warmup,
    }


def _mlperf(
    batch: int,
    steps: int,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    warmup: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """One phase; `warmup` is (num_warmup_steps, start_warmup_step)."""
    return {
        **_COMMON,
        "steps": steps,
        "global_batch_size": batch,
        "max_seq_length": 512,
        "max_predictions_per_seq": 76,
        "learning_rate": learning_rate,
        "beta_1": betas[0],
        "beta_2": betas[1],
        "weight_decay": weight_decay,
        "warmup_ratio": sum(warmup) / steps,
        "decay_from": "start",
    }


# Lan et al. 2019, section 4.1, and the defaults of `run_pretraining.py` and
# `create_pretraining_data.py` of github.com/google-research/albert.
_ALBERT = {
    **_COMMON,
    "model": "albert",
    "size": "base",
    "form": "albert",
    "weight_decay": 0.01,
    "steps": 125_000,
    "global_batch_size": 4096,
    "max_seq_length": 512,
    "max_predictions_per_seq": 20,
    "dupe_factor": 40,
    "vocab_size": 30_000,
    "learning_rate": 0.00176,
    "warmup_ratio": 3_125 / 125_000,
    "decay_from": "start",
}

PRESETS = {
    "albert": _ALBERT,
    **{f"lamb-{b}": _mixed(b, b, _SEQUENCES // b) for b in _SIZES},
    "lamb-65536": _mixed(65536, 32768, 8599),
    "mlperf-256": _mlperf(256, 13700, 3.5e-4, (0.9, 0.999), 0.01),
    "mlperf-4096": _mlperf(4096, 855, 2.4e-3, (0.66, 0.998), 0.01),
    "mlperf-8192": _mlperf(
        8192, 600, 2.88293e-3, (0.88, 0.88), 0.0166629, (287, -76)
    ),
    "mlperf-16384": _mlperf(
        16384, 600, 3.3e-3, (0.75, 0.9), 0.0166629, (290, -100)
    ),
}


def define_flags() -> None:
    """Defines --preset; the flags that it sets have to be there."""
    flags.DEFINE_enum(
        "preset",
        None,
        list(PRESETS),
        "Defaults for batch, steps, lengths, rate, warmup, betas, decay and "
        "size: lamb-B are the rows of the LAMB paper (lamb-65536: the "
        "76-minute run), mlperf-B MLPerf's reference points, which want "
        "--init_checkpoint, albert is ALBERT base as published. Flags that "
        "are given count more.",
    )
    without_effect("preset")  # the flags that it sets have it


def apply() -> None:
    """Makes the values of --preset the defaults of the other flags."""
    for name, value in PRESETS.get(FLAGS.preset, {}).items():
        FLAGS.set_default(name, value)
