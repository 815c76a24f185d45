"""`LAMB(form=...)` beside the libraries that the forms are named for.

timm and Keras run here; what stands for apex, DeepSpeed and ALBERT is in
`tests/reference/lamb_peers.py`, is itself held against those that run, and is
what `test_parity.py` holds the forms against.
"""

import ast
import importlib
import importlib.util
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems
from tests.parity_cases import STEPS
from tests.reference import lamb_peers
from tf_lamb import hyperparameters

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
RATE = 0.02
UNDECAYED = ("bias", "scale")
FORMS = tuple(hyperparameters.LAMB_FORMS)
# timm's own argument -> what it is here.
TIMM = {
    "timm": ({}, {}),
    "lambc": ({"trust_clip": True}, {}),
    "lambw": ({"decoupled_decay": True}, {}),
    "nvlamb": ({"always_adapt": True}, {}),
    "timm_sum_of_gradients": (
        {"grad_averaging": False},
        {"form": "timm", "grad_averaging": False},
    ),
    "timm_without_clipping": (
        {"max_grad_norm": None},
        {"form": "timm", "global_clipnorm": None},
    ),
    "timm_uncorrected": (
        {"bias_correction": False},
        {"form": "timm", "bias_correction": False},
    ),
    "clamb": ({"caution": True}, {"form": "timm", "cautious": True}),
    "clambcw": (
        {"caution": True, "trust_clip": True, "decoupled_decay": True},
        {
            "form": "lambw",
            "trust_ratio_bounds": (0.0, 1.0),
            "cautious": True,
        },
    ),
    "lambcw": (
        {"trust_clip": True, "decoupled_decay": True},
        {"form": "lambw", "trust_ratio_bounds": (0.0, 1.0)},
    ),
}


def _run(arguments, steps=STEPS, dtype="float32"):
    optimizer = tf_lamb.LAMB(RATE, **arguments)
    return problems.values_of(problems.run(optimizer, steps, dtype))


def _run_peer(peer, dtype="float32"):
    return problems.run_reference(peer, STEPS, dtype)


@pytest.mark.parametrize("form", lamb_peers.PEERS)
def test_float64_variables_keep_their_precision(form):
    if keras.config.backend() == "jax":
        pytest.skip("JAX has no float64 unless the process asks for it")
    ours = tf_lamb.LAMB(lambda: RATE, form=form, weight_decay=0.05)
    got = problems.values_of(problems.run(ours, STEPS, "float64"))
    peer = lamb_peers.PEERS[form](RATE, 0.05)
    assert problems.distance(got, _run_peer(peer, "float64")) < 1e-12


@pytest.fixture
def timm_lamb(monkeypatch):
    """timm's module of LAMB alone: the package imports torchvision."""
    spec = importlib.util.find_spec("timm")
    if spec is None:
        pytest.skip("timm is in the torch environment only")
    (folder,) = spec.submodule_search_locations
    for name, path in (("timm", folder), ("timm.optim", f"{folder}/optim")):
        package = types.ModuleType(name)
        package.__path__ = [path]
        monkeypatch.setitem(sys.modules, name, package)
    yield importlib.import_module("timm.optim.lamb").Lamb
    for name in [name for name in sys.modules if name.startswith("timm.")]:
        del sys.modules[name]


def _run_timm(cls, dtype, excluded, **arguments):
    import torch

    params = {
        name: torch.nn.Parameter(torch.tensor(value))
        for name, value in problems.initial_values(dtype).items()
    }
    groups = [
        {
            "params": [x for n, x in params.items() if (n in excluded) == out],
            "weight_decay": 0.0 if out else 0.05,
        }
        for out in (False, True)
    ]
    optimizer = cls([g for g in groups if g["params"]], lr=RATE, **arguments)
    for step in range(STEPS):
        for name, grad in problems.gradients(step, dtype).items():
            params[name].grad = torch.tensor(grad)
        optimizer.step()
    return {n: x.detach().numpy().astype("float64") for n, x in params.items()}


@pytest.mark.parametrize("excluded", [(), UNDECAYED])
@pytest.mark.parametrize("case", TIMM)
def test_equals_timm_over_30_steps(timm_lamb, case, excluded):
    theirs, ours = TIMM[case]
    arguments = {
        "form": case,
        "weight_decay": 0.05,
        "exclude_from_weight_decay": list(excluded),
        **ours,
    }
    expected = _run_timm(timm_lamb, "float32", excluded, **theirs)
    assert problems.distance(_run(arguments), expected) < 1e-6


@pytest.mark.parametrize("excluded", [(), UNDECAYED])
@pytest.mark.parametrize(
    "name", ["timm", "lambc", "lambw", "clamb", "apex", "nvlamb"]
)
def test_transcriptions_of_timm_and_apex_equal_timm(timm_lamb, name, excluded):
    """timm calls its Lamb a variant of apex' FusedLAMB: they agree."""
    theirs, ours = TIMM.get(name, TIMM["timm"])
    expected = _run_timm(timm_lamb, "float64", excluded, **theirs)
    options = {n: x for n, x in ours.items() if n != "form"}
    peer = lamb_peers.PEERS.get(name, lamb_peers.TimmLamb)(
        RATE, 0.05, no_decay=excluded, **options
    )
    assert problems.distance(_run_peer(peer, "float64"), expected) < 1e-12


# Exact in float32, in which Keras computes 1 - beta^t from betas so rounded.
EXACT = {"learning_rate": 2**-6, "beta_1": 1 - 2**-3, "beta_2": 1 - 2**-7}


def _run_keras(dtype, excluded, **arguments):
    optimizer = keras.optimizers.Lamb(**arguments, weight_decay=0.0625)
    optimizer.exclude_from_weight_decay(var_names=list(excluded))
    return problems.values_of(problems.run(optimizer, STEPS, dtype))


@pytest.mark.parametrize("excluded", [["none"], UNDECAYED])
@pytest.mark.parametrize("exact", [{"learning_rate": 0.01}, EXACT])
def test_equals_keras_lamb_over_30_steps(excluded, exact):
    expected = _run_keras("float32", excluded, **exact)
    arguments = {
        **exact,
        "weight_decay": 0.0625,
        "exclude_from_weight_decay": list(excluded),
        "unmatched": "ignore",
    }
    ours = tf_lamb.LAMB(form="keras", **arguments)
    got = problems.values_of(problems.run(ours, STEPS))
    assert problems.distance(got, expected) < 1e-6
    paper = tf_lamb.LAMB(epsilon=1e-7, **arguments)
    got = problems.values_of(problems.run(paper, STEPS))
    assert problems.distance(got, expected) > 1e-3


def test_transcription_of_keras_equals_keras():
    if keras.config.backend() == "jax":
        pytest.skip("JAX has no float64 unless the process asks for it")
    expected = _run_keras("float64", UNDECAYED, **EXACT)
    peer = lamb_peers.KerasLamb(
        **EXACT,
        weight_decay=0.0625,
        no_decay=UNDECAYED,
        epsilon=float(np.float32(1e-7)),
    )
    assert problems.distance(_run_peer(peer, "float64"), expected) < 1e-12


def test_forms_differ():
    """By far more than rounding, but for the two names of one algorithm."""
    arguments = {
        "weight_decay": 0.05,
        "exclude_from_weight_decay": list(UNDECAYED),
        "epsilon": 1e-6,
    }
    found = {form: _run({**arguments, "form": form}) for form in FORMS}
    for i, one in enumerate(FORMS):
        for other in FORMS[i + 1 :]:
            distance = problems.distance(found[one], found[other])
            if {one, other} == {"apex", "timm"}:
                assert distance == 0
            else:
                assert distance > 1e-4, (one, other)


@pytest.mark.parametrize("form", ["apex", "timm", "lambc", "lambw"])
def test_without_any_decay_nothing_is_adapted(form):
    optimizer = tf_lamb.LAMB(RATE, form=form, weight_decay=0.0)
    problems.run(optimizer, 3)
    assert set(optimizer.trust_ratios.values()) == {1.0}
    optimizer = tf_lamb.LAMB(RATE, form="nvlamb", weight_decay=0.0)
    problems.run(optimizer, 3)
    assert 1.0 not in optimizer.trust_ratios.values()


def test_adaptation_ends_where_the_decay_ends():
    """The decay of a schedule that has come to 0."""
    fall = tf_lamb.WarmupPolynomial(0.05, total_steps=2, end_learning_rate=0.0)
    optimizer = tf_lamb.LAMB(RATE, form="apex", weight_decay=fall)
    variables = problems.run(optimizer, 2)
    assert optimizer.trust_ratios["kernel"] != 1.0
    problems.run(optimizer, 2, first_step=2, variables=variables)
    assert optimizer.trust_ratios["kernel"] == 1.0


def test_what_is_adapted():
    def adapted(form, **arguments):
        optimizer = tf_lamb.LAMB(
            RATE,
            form=form,
            exclude_from_weight_decay=list(UNDECAYED),
            **arguments,
        )
        optimizer.build(problems.make_variables(problems.initial_values()))
        return [n for n, x in optimizer.treatments.items() if x.adapt]

    for form in ("paper", "albert", "apex", "timm", "lambc", "lambw"):
        assert adapted(form) == ["kernel"]
    for form in ("nvlamb", "deepspeed", "keras", "lans"):
        assert adapted(form) == ["kernel", "bias", "scale"]
        only = adapted(form, exclude_from_layer_adaptation=["kernel"])
        assert only == ["bias", "scale"]
    assert adapted("apex", exclude_from_layer_adaptation=["scale"]) == [
        "kernel"
    ]


def test_a_method_that_excludes_from_decay_excludes_from_adaptation():
    optimizer = tf_lamb.LAMB(RATE, form="apex")
    variables = problems.make_variables(problems.initial_values())
    optimizer.exclude_from_weight_decay(var_list=variables[1:])
    optimizer.build(variables)
    assert [x.adapt for x in optimizer.treatments.values()] == [1, 0, 0]


def test_no_limit_of_a_norm_changes_lans():
    """Each gradient is divided by its norm. A limit of elements does."""

    def end(**clipping):
        return _run({"form": "lans", "weight_decay": 0.05, **clipping})

    plain = end()
    for name in ("clipnorm", "global_clipnorm"):
        assert problems.distance(end(**{name: 1e-3}), plain) < 1e-6
    assert problems.distance(end(clipvalue=1e-3), plain) > 1e-4


@pytest.mark.parametrize("moment_dtype", [None, "bfloat16"])
def test_lans_skips_a_step_and_goes_on(moment_dtype):
    optimizer = tf_lamb.LAMB(RATE, form="lans", moment_dtype=moment_dtype)
    variables = problems.run(optimizer, 3)
    before = problems.values_of([*variables, *optimizer.variables])
    grads = problems.gradients(3)
    grads["bias"][0] = np.nan
    problems.apply(optimizer, variables, grads)
    after = problems.values_of([*variables, *optimizer.variables])
    changed = {n for n in after if (after[n] != before[n]).any()}
    assert changed == {"iteration", "skipped_steps"}
    problems.run(optimizer, 3, first_step=4, variables=variables)
    values = problems.values_of(variables)
    assert all(np.isfinite(x).all() for x in values.values())
    assert (values["kernel"] != after["kernel"]).all()


DEFAULTS = ("epsilon", "weight_decay", "trust_ratio_bounds", "global_clipnorm")


@pytest.mark.parametrize("form", FORMS)
def test_defaults_of_a_form_and_their_config(form):
    optimizer = tf_lamb.LAMB(form=form)
    own = hyperparameters.LAMB_FORMS[form]
    for name in (*DEFAULTS, "bias_correction", "grad_averaging"):
        assert getattr(optimizer, name) == getattr(own, name), name
    config = optimizer.get_config()
    again = tf_lamb.LAMB.from_config(config)
    assert again.get_config() == config
    assert again.form == form


def test_none_is_what_the_form_has_at_first_and_no_value_later():
    arguments = dict(epsilon=None, weight_decay=None, bias_correction=None)
    optimizer = tf_lamb.LAMB(form="albert", **arguments)
    assert optimizer.epsilon == 1e-6
    assert optimizer.weight_decay == 0
    assert optimizer.bias_correction is False
    for name in ("epsilon", "bias_correction"):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            setattr(optimizer, name, None)


def test_the_guide_has_the_defaults_of_each_form():
    page = (GUIDES / "lamb_forms.md").read_text(encoding="utf-8")
    table = page.split("## What a form has by default")[1].split("\n\n")[1]
    found = {}
    for line in table.splitlines()[2:]:
        names, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found |= {n.strip(' `"'): cells for n in names.split(",")}
    assert set(found) == set(FORMS)
    for form, (*numbers, fixed) in found.items():
        own = hyperparameters.LAMB_FORMS[form]
        names = "epsilon", "weight_decay", "bias_correction", *DEFAULTS[2:]
        values = [getattr(own, name) for name in names]
        assert list(map(ast.literal_eval, numbers)) == values, form
        assert set(fixed.replace("`", "").split(", ")) - {""} == set(own.fixed)


@pytest.mark.parametrize("form", FORMS)
def test_a_config_keeps_what_differs_from_the_defaults(form):
    arguments = dict(epsilon=1e-3, weight_decay=0.0, global_clipnorm=None)
    optimizer = tf_lamb.LAMB(form=form, **arguments)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert {n: getattr(again, n) for n in arguments} == arguments
    assert again.get_config() == optimizer.get_config()


def test_another_limit_takes_the_place_of_the_forms():
    optimizer = tf_lamb.LAMB(form="apex", clipnorm=0.5)
    assert (optimizer.clipnorm, optimizer.global_clipnorm) == (0.5, None)
    optimizer = tf_lamb.LAMB(form="timm", clipvalue=None)
    assert optimizer.global_clipnorm == 1.0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"form": "lamb"}, "form: expected one of 'paper', 'albert', .* got"),
        (
            {"form": "albert", "bias_correction": True},
            "bias_correction: form='albert' has False, got True; leave",
        ),
        (
            {"form": "keras", "bias_correction": False},
            "bias_correction: form='keras' has True, got False",
        ),
        (
            {"form": "deepspeed", "grad_averaging": False},
            "grad_averaging: form='deepspeed' has True, got False",
        ),
        (
            {"form": "lambc", "trust_ratio_bounds": (0.0, 2.0)},
            r"trust_ratio_bounds: form='lambc' has \(0.0, 1.0\), got \(0.0, 2",
        ),
        (
            {"form": "apex", "nesterov": "nadam"},
            "nesterov: form='apex' has None, got 'nadam'",
        ),
        (
            {"form": "lans", "cautious": True},
            "cautious: not defined for form='lans', .* got True; expected",
        ),
        (
            {"nesterov": "nadam", "grad_averaging": False},
            "nesterov: not defined with grad_averaging=False, got 'nadam'",
        ),
        (
            {
                "form": "timm",
                "exclude_from_weight_decay": ["bias"],
                "exclude_from_layer_adaptation": [],
            },
            r"exclude_from_layer_adaptation: expected None, .* got \[\]; form=",
        ),
    ],
)
def test_what_contradicts_a_form_raises_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        tf_lamb.LAMB(**arguments)
    assert "\n" not in str(caught.value)
