"""Plans as text, JSON, table and plot."""

import collections
import dataclasses

from tpu.plan.planner import Plan

LEFT_OUT = (
    "left out: input, evaluation, checkpoints, start-up and compilation; the "
    "latency of collectives; whatever a real compiler version or machine does "
    "otherwise. Nothing was run on a TPU."
)


def _gb(value):
    return f"{value / 1e9:.2f} GB"


def _seconds(value):
    if value is None:
        return "not given"
    return f"{1000 * value:.4g} ms" if value < 1 else f"{value:.4g} s"


def _range(low, high, form):
    """Two figures, or one where they read the same."""
    low, high = form.format(low), form.format(high)
    return low if low == high else f"{low} to {high}"


def heading(plan: Plan) -> str:
    """What is planned, in a line."""
    job, where = plan.job, plan.job.where
    options = job.options
    what = f"{job.model}, batch {job.batch_size:,}"
    if job.model.startswith(("bert-", "albert-")):
        what += f" x {options.sequence_length} tokens"
    if ":" not in job.model:
        what += f", {options.optimizer.upper()}, {options.dtype}"
        if options.rematerialize != "none":
            what += ", blocks rematerialised"
    if job.mesh is not None:
        what += f", mesh {job.mesh}"
    if job.shard_state:
        what += ", optimizer state sharded"
    return (
        f"{what}, on {where.name}: {where.chips:,} chips, {where.devices:,} "
        f"devices, {job.batch_size // job.shape[0]} examples each"
    )


def text(plan: Plan, steps: int | None = None) -> str:
    """A plan to read.

    Args:
        plan: what was found.
        steps: of the schedule; None for no minutes.
    """
    lines = [heading(plan), *_memory(plan)]
    if plan.step is not None:
        lines += _work(plan) + _time(plan, steps)
    return "\n".join(lines)


def _memory(plan):
    program = plan.program
    if not program.fits:
        return [
            f"memory     does not fit: {_gb(program.used_bytes)} wanted, "
            f"{_gb(program.limit_bytes)} there (the compiler's figures, a "
            "device)"
        ]
    chip = plan.job.where.chip
    return [
        f"memory     fits: {_gb(program.used_bytes)} a device: arguments "
        f"{_gb(program.argument_bytes)}, temporaries "
        f"{_gb(program.temporary_bytes)}, code {_gb(program.code_bytes)}; "
        f"published {_gb(chip.hbm_bytes / chip.devices)}"
    ]


def _work(plan):
    program = plan.program
    counts = collections.Counter(c.kind for c in program.collectives)
    sizes = collections.Counter()
    for item in program.collectives:
        sizes[item.kind] += item.bytes
    kinds = ", ".join(
        f"{n} {kind} of {_gb(sizes[kind])}" for kind, n in counts.items()
    )
    return [
        f"work       {program.flops / 1e12:.3g} TFLOP and "
        f"{_gb(program.hbm_bytes)} of HBM traffic a device and step",
        f"collective {kinds or 'none'}",
    ]


def _time(plan, steps):
    step, where = plan.step, plan.job.where
    roofline = (
        f"roofline {_seconds(step.roofline)}, bound by {step.bound_by}"
        if step.roofline is not None
        else "no roofline: this TPU's bandwidth is not published"
    )
    given = (
        f"{_seconds(step.compiler)} by the compiler's estimate; {roofline}"
        if step.compiler is not None
        else f"by {roofline} (the compiler gives no estimate here)"
    )
    lines = [
        f"computing  {given}",
        f"sending    {_seconds(step.communication)} by bytes and published "
        "link speed",
    ]
    if step.compute is None:
        return lines
    low, high = step.overlapped, step.serial
    batch = plan.job.batch_size
    lines += [
        f"step       {_range(1000 * low, 1000 * high, '{:.4g}')} ms ("
        f"{step.source}; sending hidden entirely, or not at all): "
        f"{_range(batch / high, batch / low, '{:,.0f}')} examples/s",
        "use        "
        + _range(
            100 * plan.utilisation(high),
            100 * plan.utilisation(low),
            "{:.1f}",
        )
        + "% of the peak by model FLOPs "
        f"({plan.model_flops / 1e12:.4g} TFLOP a step)",
    ]
    if steps:
        hours = where.chips * steps / 3600
        lines += [
            f"schedule   {steps:,} steps: "
            f"{_range(steps * low / 60, steps * high / 60, '{:.1f}')} minutes, "
            f"{_range(hours * low, hours * high, '{:,.1f}')} chip-hours"
        ]
    return lines


def as_json(plan: Plan, steps: int | None = None) -> dict:
    """A plan as JSON values: seconds, bytes, FLOPs."""
    found = dataclasses.asdict(plan)
    where = plan.job.where
    found["chips"], found["devices"] = where.chips, where.devices
    if plan.step is not None and plan.step.compute is not None:
        low, high = plan.step.overlapped, plan.step.serial
        found["seconds_per_step"] = {
            "source": plan.step.source,
            "sending_hidden": low,
            "sending_not_hidden": high,
        }
        found["model_flops_utilisation"] = {
            "sending_hidden": plan.utilisation(low),
            "sending_not_hidden": plan.utilisation(high),
        }
        if steps:
            found["steps"] = steps
            found["minutes"] = {
                "sending_hidden": steps * low / 60,
                "sending_not_hidden": steps * high / 60,
            }
    return found
