"""Published runs: what they did, and how long that took.

Times are the papers'. A step's is time / steps, evaluation and start-up
included where the paper counts them.
"""

import dataclasses

from tpu.plan.planner import Job
from tpu.plan.workloads import Options


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a run.

    Attributes:
        job: what is trained on what.
        steps: how often.
    """

    job: Job
    steps: int


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A run.

    Attributes:
        phases: one after the other.
        published_minutes: of the whole.
        source: who says so.
    """

    phases: tuple[Phase, ...]
    published_minutes: float
    source: str


def _bert(batch_size, sequence_length, topology):
    options = Options(sequence_length=sequence_length)
    return Job("bert-large", options, topology, batch_size)


_LAMB = "You et al. 2019, arXiv:1904.00962v1, table 1"
_IMAGES = 1_281_167
RECIPES = {
    # 9/10 of the epochs with short sequences, then a new warmup.
    "lamb-76min": Recipe(
        (
            Phase(_bert(65536, 128, "v3:32x32"), 7037),
            Phase(_bert(32768, 512, "v3:32x32"), 1562),
        ),
        76.19,
        _LAMB,
    ),
    # 15.6k steps, nine tenths of them with short sequences.
    "lamb-32k": Recipe(
        (
            Phase(_bert(32768, 128, "v3:32x32"), 14062),
            Phase(_bert(32768, 512, "v3:32x32"), 1563),
        ),
        101.2,
        _LAMB + "; its 15.6k steps taken as 15,625",
    ),
    # 1.05 million images/s over 90 epochs.
    "resnet50-2min": Recipe(
        (
            Phase(
                Job(
                    "resnet50",
                    Options(image_size=224, optimizer="lars"),
                    "v3:32x32",
                    32768,
                ),
                3519,
            ),
        ),
        90 * _IMAGES / 1.05e6 / 60,
        "Ying et al. 2018, arXiv:1811.06992, abstract: 1.05 million images/s; "
        "the minutes are 90 epochs at this speed, without evaluation",
    ),
}
