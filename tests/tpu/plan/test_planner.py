"""Plans of a model that can be counted by hand, compiled for small slices."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

if importlib.util.find_spec("libtpu") is None:
    pytest.skip("libtpu is not installed", allow_module_level=True)

import tpu.plan  # noqa: F401

# isort: split
import jax

from official_models.common.errors import InputError
from tests.official_models.scripts import flags_of
from tests.tpu.plan import linear
from tpu.plan import __main__ as program
from tpu.plan import (
    chips,
    compiler,
    planner,
    recipes,
    report,
    sweep,
    train_step,
    workloads,
)

DEVICES = 8  # of v3:2x2
BATCH = 1024
OPTIONS = workloads.Options()
GIB = 2**30


def job(function="build", batch_size=BATCH, topology="v3:2x2", **kwargs):
    name = f"tests.tpu.plan.linear:{function}"
    return planner.Job(name, OPTIONS, topology, batch_size, **kwargs)


def plain(batch_size):
    """A model whose module has no layouts."""
    return linear.build(batch_size)


@pytest.fixture(scope="module")
def plan():
    return planner.make(job())


def test_model_flops(plan):
    # x W, and the gradient x^T e: a product and a sum each; x has no gradient.
    assert plan.model_flops == 2 * 2 * BATCH * linear.PARAMETERS


def test_argument_bytes(plan):
    arrays = 4 * (
        2 * linear.PARAMETERS  # W and its momentum
        + BATCH // DEVICES * (linear.INPUTS + linear.OUTPUTS)
    )
    # Scalars, such as the step, take a tile each.
    assert arrays <= plan.program.argument_bytes < arrays + 20_000


def test_one_gradient_is_all_reduced(plan):
    kinds = {item.kind for item in plan.program.collectives}
    sent = sum(item.bytes for item in plan.program.collectives)
    assert kinds == {"all-reduce"}
    # Besides the gradient, loss and metrics.
    assert 0 <= sent - 4 * linear.PARAMETERS < 100


def test_program_flops_are_those_of_one_device(plan):
    share = plan.model_flops / DEVICES
    assert share <= plan.program.flops < 1.2 * share


def test_hbm_bytes_are_no_less_than_what_must_move(plan):
    arrays = 4 * (
        # W, momentum and gradient read, W and momentum written.
        5 * linear.PARAMETERS + BATCH // DEVICES * linear.INPUTS
    )
    assert arrays <= plan.program.hbm_bytes < 3 * arrays


def test_estimates_grow_with_the_batch(plan):
    larger = planner.make(job(batch_size=8 * BATCH))
    assert larger.model_flops == 8 * plan.model_flops
    assert larger.program.flops > 7 * plan.program.flops
    assert larger.step.compute > plan.step.compute
    # The gradient is as large as before.
    assert larger.step.communication == pytest.approx(
        plan.step.communication, rel=1e-3
    )


def test_sharded_moments_take_less_memory():
    whole = planner.make(job("build_lamb"))
    split = planner.make(job("build_lamb", shard_state=True))
    saved = whole.program.argument_bytes - split.program.argument_bytes
    moments = 2 * 4 * linear.PARAMETERS
    assert saved == pytest.approx(moments * (1 - 1 / DEVICES), rel=0.05)


def test_a_mesh_splits_weights_and_moments():
    whole = planner.make(job("build_lamb"))
    split = planner.make(job("build_lamb", mesh="4x2"))
    both = planner.make(job("build_lamb", mesh="4x2", shard_state=True))
    # A device has a quarter of the batch in place of an eighth, and half of W
    # and its moments.
    batch = 4 * BATCH * (linear.INPUTS + linear.OUTPUTS)
    saved = whole.program.argument_bytes - split.program.argument_bytes
    arrays = 3 * 4 * linear.PARAMETERS / 2
    assert saved == pytest.approx(arrays - batch / 8, rel=0.05)
    saved = split.program.argument_bytes - both.program.argument_bytes
    moments = 2 * 4 * linear.PARAMETERS
    assert saved == pytest.approx(moments * (1 / 2 - 1 / 8), rel=0.05)
    assert "mesh 4x2" in report.text(split)
    assert "256 examples each" in report.text(split)


def test_layouts_of_bert_are_those_of_training():
    workload = workloads.make("bert-tiny", OPTIONS)
    sizes = {"batch": 2, "model": 4}
    axes = train_step._Axes(workload, sizes, True)
    weight = next(
        v
        for v in workload.model.trainable_variables
        if v.path.endswith("layer_0/intermediate/dense/kernel")
    )
    assert axes.of_weight(weight) == (None, "model")
    name = f"{weight.path.replace('/', '_')}_"
    moments = [v for v in workload.model.optimizer.variables if name in v.path]
    assert len(moments) == 2
    for moment in moments:
        assert axes.of_state(moment) == ("batch", "model")
    assert axes.of_state(workload.model.optimizer.iterations) == ()
    alone = train_step._Axes(workload, {"batch": 8, "model": 1}, False)
    assert set(map(alone.of_weight, workload.model.trainable_variables)) == {
        (None,),
        (None, None),
    }


def test_where_the_compiler_gives_no_estimate_the_report_says_so(plan):
    step = dataclasses.replace(plan.step, compiler=None)
    text = report.text(dataclasses.replace(plan, step=step))
    assert "the compiler gives no estimate" in text
    assert "(roofline; sending hidden" in text
    assert "(compiler; sending hidden" in report.text(plan)


def test_a_program_without_room_is_refused_with_its_bytes():
    # 8 million rows a device: 8 GiB of x, 16 GiB of y.
    refused = planner.make(job(batch_size=8 * 2**23))
    assert not refused.program.fits and refused.step is None
    assert refused.program.used_bytes > refused.program.limit_bytes
    assert 15 * GIB < refused.program.limit_bytes < 16 * GIB
    assert "does not fit" in report.text(refused)
    found = planner.largest_batch(refused)
    assert found.program.fits
    assert found.program.used_bytes > 0.5 * refused.program.limit_bytes


def test_bert_and_its_rematerialisation():
    options = workloads.Options(sequence_length=16, dropout=0.0)
    plain = planner.Job("bert-tiny", options, "v3:2x2", 64)
    again = planner.rematerialized(plain)
    first, second = planner.make(plain), planner.make(again)
    assert first.program.fits and second.program.fits
    # The same model, which the program computes in part twice.
    assert second.model_flops == first.model_flops
    assert second.program.flops > 1.05 * first.program.flops


@pytest.mark.parametrize("name", ["albert-base", "resnet8_cifar"])
def test_known_models_trace(name):
    options = workloads.Options(
        sequence_length=8, image_size=32, optimizer="lars"
    )
    workload = workloads.make(name, options)
    where = chips.parse("v3:2x2")
    traced = train_step.trace(workload, 16, compiler.devices(where), (8, 1))
    flops = train_step.model_flops(traced.jaxpr)
    # A forward pass and about two for the gradients.
    forward = train_step.model_flops(
        jax.make_jaxpr(
            lambda x: workload.model.stateless_call(
                workload.model.trainable_variables,
                workload.model.non_trainable_variables,
                x,
            )[0]
        )(workload.batch(16)[0])
    )
    assert 2.8 * forward < flops <= 3 * forward


def _pretend(bytes_each, limit, compiled):
    """`planner.make` of a program that needs so much an example."""

    def make(job):
        compiled.append(job.batch_size // DEVICES)
        used = bytes_each * compiled[-1] + limit / 5
        program = compiler.Program(used <= limit, used, 1.0, limit)
        return planner.Plan(job, program, None, 0)

    return make


def test_the_search_ends_near_the_limit():
    limit, compiled = 16 * GIB, []
    make = _pretend(10e6, limit, compiled)
    refused = make(job(batch_size=8 * 8192))
    found = planner.largest_batch(refused, make)
    most = (limit - limit / 5) / 10e6
    assert 0.9 * most <= found.job.batch_size / DEVICES <= most
    assert len(compiled) <= 1 + planner.MAX_COMPILES


def test_the_search_gives_up_where_one_example_does_not_fit():
    make = _pretend(100 * GIB, 16 * GIB, [])
    refused = make(job(batch_size=8 * 4))
    assert planner.largest_batch(refused, make) is None


def test_sweep(plan, tmp_path):
    points = []
    for label, each in sweep.jobs(job(), "topology=v3:2x2,v3:4x4"):
        points.append(sweep.point(label, planner.make(each), 10**6))
    table = sweep.table(points)
    assert "| v3:2x2 | 4 |" in table and "| v3:4x4 | 16 |" in table
    # Four times the chips for a model this small cost more than they bring.
    assert points[1].chip_hours > points[0].chip_hours
    assert sweep.stops_scaling(points) is points[1]
    sweep.draw(tmp_path / "sweep.png", points, "linear")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["", "batch_size=", "batch_size=a", "chips=4"])
def test_a_sweep_of_nonsense(text):
    with pytest.raises(InputError, match="--sweep"):
        sweep.jobs(job(), text)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(batch_size=1023), "multiple of the 8 devices"),
        (dict(batch_size=18, topology="v3:3x3"), "not divisible"),
        (dict(mesh="2x2"), "--mesh 2x2: 4 devices, expected all 8"),
        (dict(mesh="two"), "--mesh two: expected AxB"),
        (
            dict(mesh="2x4", batch_size=3),
            "multiple of the 2 devices of a column of 2x4",
        ),
        (
            dict(mesh="2x4", model="tests.tpu.plan.test_planner:plain"),
            "has no layouts; give its module LAYOUTS",
        ),
        (dict(model="bart"), "expected one of bert-tiny"),
        (dict(model="nosuch:build"), "No module named"),
        (dict(model="tests.tpu.plan.linear:nosuch"), "nosuch"),
        (
            dict(model="tests.tpu.plan.linear:build_without_optimizer"),
            "no optimizer",
        ),
        (dict(model="tests.tpu.plan.linear:build_wrong_batch"), "asked for"),
        (
            dict(model="tests.tpu.plan.linear:build_that_fails"),
            "KeyError: 'batch of 8' .*linear.py, line",
        ),
        (
            dict(model="tests.tpu.plan.linear:build_unequal_shapes"),
            "cannot be traced: .*511",
        ),
        (
            dict(
                model="resnet50",
                options=dataclasses.replace(OPTIONS, dtype="int31"),
            ),
            "int31",
        ),
    ],
)
def test_bad_jobs(changes, message):
    with pytest.raises(InputError, match=message):
        planner.make(dataclasses.replace(job(), **changes))


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="make .venv-plan"):
        planner.make(job())


def test_the_recipe_has_the_papers_steps():
    phases = recipes.RECIPES["lamb-76min"].phases
    assert sum(phase.steps for phase in phases) == 8599
    assert [p.job.batch_size for p in phases] == [65536, 32768]
    assert {p.job.where.chips for p in phases} == {1024}


def _program(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tpu.plan", *arguments],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )


def test_the_program_writes_what_it_found(tmp_path):
    output = tmp_path / "plan.json"
    command = ["--model", "tests.tpu.plan.linear:build", "--topology", "v3:2x2"]
    command += ["--batch_size", "1024", "--steps", "100"]
    done = _program(*command, "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "schedule   100 steps" in done.stdout
    written = json.loads(output.read_text())
    assert written["plan"]["steps"] == 100
    assert written["plan"]["program"]["fits"]


def test_a_job_without_room_ends_with_status_2_and_what_fits(tmp_path):
    output = tmp_path / "plan.json"
    command = ["--model", "tests.tpu.plan.linear:build", "--topology", "v3:2x2"]
    command += ["--batch_size", str(8 * 2**23), "--examples", str(2**30)]
    done = _program(*command, "--output", str(output))
    assert done.returncode == 2
    assert "the largest batch found" in done.stdout
    assert "too little memory" in done.stderr.splitlines()[-1]
    written = json.loads(output.read_text())
    assert not written["plan"]["program"]["fits"]
    assert written["largest_batch"]["program"]["fits"]
    # As many examples in all.
    steps = written["largest_batch"]["steps"]
    batch = written["largest_batch"]["job"]["batch_size"]
    assert steps * batch == pytest.approx(2**30, rel=0.01)


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["--time_limit=0.001"], "--time_limit 0.001: tests.tpu.plan.linear"),
        (["--steps=5", "--examples=5"], "--steps 5, --examples 5: expected"),
        (["--output=/"], "--output /: expected a file"),
    ],
)
def test_what_the_program_refuses(arguments, part):
    command = ["--model", "tests.tpu.plan.linear:build", "--topology", "v3-8"]
    done = _program(*command, "--batch_size=1024", *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {part}")


def test_a_sweep_of_the_program(tmp_path):
    output = tmp_path / "sweep.json"
    command = ["--model", "tests.tpu.plan.linear:build", "--examples=1000000"]
    command += ["--sweep", "batch_size=1024,4096", "--topology", "v3:2x2"]
    done = _program(*command, "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "| 4,096 | 4 |" in done.stdout
    labels = [p["label"] for p in json.loads(output.read_text())["points"]]
    assert labels == ["1,024", "4,096"]
    assert output.with_suffix(".png").exists()


def test_a_recipe_adds_its_phases_up(monkeypatch, capsys):
    recipe = recipes.Recipe(
        (recipes.Phase(job(), 100), recipes.Phase(job(), 300)), 7.5, "nobody"
    )
    monkeypatch.setattr(recipes, "RECIPES", {"small": recipe})
    with flags_of(program):
        flags.FLAGS.mark_as_parsed()
        found = program._recipe("small")
    first, second = (p["minutes"]["sending_hidden"] for p in found["phases"])
    assert second == pytest.approx(3 * first)
    assert found["minutes"]["sending_hidden"] == pytest.approx(first + second)
    assert "7.5 published (nobody)" in capsys.readouterr().out


def test_the_program_refuses_in_one_line():
    done = _program("--topology", "v9:1x1")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: --topology 'v9:1x1'")
