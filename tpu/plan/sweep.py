"""Several plans side by side: a table, and a plot of time and cost."""

import dataclasses
import io
from pathlib import Path

from official_models.common.errors import InputError
from tpu.plan.planner import Job, Plan

# A point that costs this much more chip-hours than the cheapest one.
STOPS_AT = 1.5


@dataclasses.dataclass(frozen=True)
class Point:
    """One plan of a sweep.

    Attributes:
        label: the value that is swept.
        plan: what was found.
        minutes: for all examples, sending not hidden; None if it is unknown.
        chip_hours: the same.
    """

    label: str
    plan: Plan
    minutes: float | None
    chip_hours: float | None


def jobs(job: Job, sweep: str) -> list[tuple[str, Job]]:
    """The jobs of a sweep.

    Args:
        job: what does not change.
        sweep: "batch_size=4096,8192" or "topology=v3:8x8,v3:16x16".

    Raises:
        InputError: not of this form.
    """
    what, _, values = sweep.partition("=")
    labels = [value for value in values.split(",") if value]
    if what not in ("batch_size", "topology") or not labels:
        raise InputError(
            f"--sweep {sweep!r}: expected batch_size=4096,8192 or "
            "topology=v3:8x8,v3:16x16"
        )
    if what == "topology":
        return [(v, dataclasses.replace(job, topology=v)) for v in labels]
    try:
        sizes = [int(value) for value in labels]
    except ValueError:
        raise InputError(
            f"--sweep {sweep!r}: expected whole numbers after batch_size="
        ) from None
    return [
        (f"{size:,}", dataclasses.replace(job, batch_size=size))
        for size in sizes
    ]


def point(label: str, plan: Plan, examples: int) -> Point:
    """A plan with its time and cost for so many examples in all."""
    if plan.step is None or plan.step.serial is None:
        return Point(label, plan, None, None)
    steps = examples / plan.job.batch_size
    minutes = steps * plan.step.serial / 60
    return Point(label, plan, minutes, minutes / 60 * plan.job.where.chips)


def stops_scaling(points: list[Point]) -> Point | None:
    """The first point that costs `STOPS_AT` times the cheapest, if any."""
    known = [p for p in points if p.chip_hours is not None]
    for p in known:
        if p.chip_hours > STOPS_AT * min(q.chip_hours for q in known):
            return p
    return None


def table(points: list[Point]) -> str:
    """Markdown."""
    lines = [
        "|  | chips | GB a device | step, ms | sending, ms | of the peak, % | "
        "minutes | chip-hours |",
        "| --- |" + " ---: |" * 7,
    ]
    for p in points:
        used = p.plan.program.used_bytes / 1e9
        cells = [p.label, f"{p.plan.job.where.chips:,}", f"{used:.1f}"]
        if p.minutes is None:
            why = "unknown" if p.plan.program.fits else "does not fit"
            cells += [why, "", "", "", ""]
        else:
            step = p.plan.step
            cells += [
                f"{1000 * step.serial:.4g}",
                f"{1000 * step.communication:.3g}"
                if step.communication is not None
                else "unknown",
                f"{100 * p.plan.utilisation(step.serial):.1f}",
                f"{p.minutes:.1f}",
                f"{p.chip_hours:,.1f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(path: Path, points: list[Point], title: str) -> None:
    """Writes a PNG of minutes and chip-hours; nothing if none is known."""
    from matplotlib.figure import Figure

    known = [p for p in points if p.minutes is not None]
    if not known:
        return
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    labels = [p.label for p in known]
    for ax, name in zip(axes, ("minutes", "chip_hours")):
        ax.plot(labels, [getattr(p, name) for p in known], marker="o")
        ax.set_ylim(bottom=0)
        ax.set_ylabel(name.replace("_", "-"))
        ax.tick_params(axis="x", rotation=30)
        ax.grid(alpha=0.3)
    last = stops_scaling(points)
    if last is not None:
        axes[1].axvline(last.label, linestyle="--", color="gray")
        axes[1].set_title(f"from {last.label}: {STOPS_AT} x the least", size=9)
    figure.suptitle(f"{title} (estimated, not measured)", size=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)
