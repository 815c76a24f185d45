"""Arguments of LAMB, LARS and the schedules, for property tests.

No Keras is imported: `module` is one of the front ends.
"""

import json

from hypothesis import strategies as st

from tf_lamb import (
    Group,
    arithmetic,
    exclusion,
    hyperparameters,
    schedule_checks,
)

BETAS = st.sampled_from([0.0, 0.5, 0.9, 0.999])
# Patterns of which each matches a variable of a model of dense layers.
PATTERNS = st.one_of(
    st.none(),
    st.just(exclusion.BIASES_AND_NORMS),
    st.lists(
        st.sampled_from(
            ["bias", "kernel", "bias$", "k.rnel", "(?i)BIAS", "[bk]"]
        ),
        max_size=3,
    ),
)
BOUNDS = st.tuples(st.floats(0, 2), st.floats(2, 8))
CLIPPING = st.sampled_from(
    [{}, {"clipnorm": 0.5}, {"clipvalue": 0.25}, {"global_clipnorm": 2.0}]
)
AVERAGING = st.sampled_from(
    [
        {},
        {"use_ema": True, "ema_momentum": 0.5},
        {"use_ema": True, "ema_overwrite_frequency": 3},
    ]
)
# Of the biases, and of the kernels: a group that is hidden by an earlier one
# would warn.
_OPTIONS = st.sampled_from(
    [
        {"learning_rate_multiplier": 0.5},
        {"learning_rate": 0.125, "weight_decay": 0.25},
        {"adapt": False, "weight_decay": 0.0},
        {"frozen": True},
        {"trust_ratio_per": "filter"},
        {"trust_ratio_per": "layer", "norm": "l1"},
        {"trust_ratio_per": (-1, 1), "phi_bounds": (0.5, 2.0)},
    ]
)
GROUPS = st.fixed_dictionaries(
    {}, optional={"bias": _OPTIONS, "kernel": _OPTIONS}
).map(lambda found: [Group(path, **how) for path, how in found.items()])
SHARED = dict(
    groups=GROUPS,
    weight_decay=st.sampled_from([0.0, 0.01, 0.5]),
    exclude_from_weight_decay=PATTERNS,
    exclude_from_layer_adaptation=PATTERNS,
    unmatched=st.sampled_from(exclusion.UNMATCHED),
    name=st.sampled_from(["LAMB", "other_name"]),
    norm=st.sampled_from(arithmetic.NORMS),
    phi_bounds=st.one_of(st.none(), BOUNDS),
    trust_ratio_bounds=st.one_of(st.none(), BOUNDS),
    clip_by_unit=st.sampled_from([None, 0.125]),
    skip_nonfinite=st.booleans(),
    moment_dtype=st.sampled_from(hyperparameters.MOMENT_DTYPES),
    jit_compile=st.booleans(),
    loss_scale_factor=st.sampled_from([None, 8.0]),
    gradient_accumulation_steps=st.sampled_from([None, 2]),
)
LAMB = dict(
    **SHARED,
    beta_1=BETAS,
    beta_2=BETAS,
    epsilon=st.sampled_from([1e-6, 1e-3]),
    bias_correction=st.booleans(),
    nesterov=st.sampled_from(hyperparameters.NESTEROV_FORMS),
    form=st.sampled_from(list(hyperparameters.LAMB_FORMS)),
    grad_averaging=st.booleans(),
    cautious=st.booleans(),
)
LARS = dict(
    **SHARED,
    momentum=BETAS,
    trust_coefficient=st.sampled_from([0.001, 0.1]),
    epsilon=st.sampled_from([0.0, 1e-3]),
    form=st.sampled_from(hyperparameters.LARS_FORMS),
    nesterov=st.booleans(),
)


@st.composite
def arguments_of_polynomial(draw):
    total = draw(st.integers(1, 100))
    end, peak = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    warmup = draw(st.integers(0, total))
    decay_from = draw(st.sampled_from(schedule_checks.DECAY_FROM))
    constant = total - warmup if decay_from == "warmup_end" else 0
    return dict(
        learning_rate=peak,
        total_steps=total,
        warmup_steps=warmup,
        end_learning_rate=end,
        power=draw(st.floats(0.25, 4)),
        decay_from=decay_from,
        constant_steps=draw(st.integers(0, constant)),
    )


# Of a schedule: the arguments of a `WarmupPolynomial`, or the phases of a
# `Rewarmup` with their lengths.
SCHEDULES = st.recursive(
    arguments_of_polynomial(),
    lambda inner: st.lists(
        st.tuples(inner, st.integers(1, 50)), min_size=1, max_size=3
    ),
    max_leaves=4,
)
RATES = st.one_of(st.floats(0, 1, width=32), SCHEDULES)


def make_rate(module, drawn):
    """A number as it is; a schedule of the front end."""
    if isinstance(drawn, float):
        return drawn
    if isinstance(drawn, dict):
        return module.WarmupPolynomial(**drawn)
    phases = [make_rate(module, phase) for phase, _ in drawn]
    return module.Rewarmup(phases, [length for _, length in drawn])


@st.composite
def arguments_of(draw, name):
    """Arguments of the optimizer of a name, without its learning rate."""
    arguments = draw(st.fixed_dictionaries({"LAMB": LAMB, "LARS": LARS}[name]))
    if name == "LAMB":
        _follow_form(arguments)
    elif arguments["form"] == "you2020":
        arguments["nesterov"] = False
    clipping = draw(CLIPPING)
    if {"clipnorm", "clipvalue"} & set(clipping):
        arguments["clip_by_unit"] = None
    return {**arguments, **clipping, **draw(AVERAGING)}


def _follow_form(arguments):
    """Changes what contradicts the form of LAMB."""
    own = hyperparameters.LAMB_FORMS[arguments["form"]]
    arguments.update((name, getattr(own, name)) for name in own.fixed)
    bounds = arguments["trust_ratio_bounds"]
    arguments["trust_ratio_bounds"] = own.default("trust_ratio_bounds", bounds)
    if arguments["nesterov"]:
        arguments["grad_averaging"] = True
    if own.two_directions:
        arguments["cautious"] = False
    if own.undecayed == "not_adapted":
        arguments["exclude_from_layer_adaptation"] = None
    elif own.undecayed == "adapted":  # None means all
        arguments["exclude_from_layer_adaptation"] = (
            arguments["exclude_from_layer_adaptation"] or []
        )


def in_config(value):
    """What a config holds of an argument."""
    if isinstance(value, list) and value and isinstance(value[0], Group):
        value = [group.options() for group in value]
        return [{k: in_config(x) for k, x in x.items()} for x in value]
    return list(value) if isinstance(value, tuple) else value


def check_config(keras, optimizer, arguments, rate):
    """The config of an optimizer holds its arguments, and makes it again."""
    config = optimizer.get_config()
    for argument, value in arguments.items():
        expected = in_config(value)
        if argument == "groups":
            expected = expected or None
        assert config[argument] == expected, argument
    if isinstance(rate, float):
        assert config["learning_rate"] == rate
    text = json.dumps(keras.optimizers.serialize(optimizer))
    for again in (
        type(optimizer).from_config(config),
        keras.optimizers.deserialize(json.loads(text)),
    ):
        assert type(again) is type(optimizer)
        assert again.get_config() == config
    # `from_config` leaves the dict as it was.
    assert config == optimizer.get_config()


def check_schedule(keras, schedule, step):
    """A schedule comes back from its text with its rates."""
    as_dict = keras.optimizers.schedules.serialize(schedule)
    text = json.dumps(as_dict)
    again = keras.optimizers.schedules.deserialize(json.loads(text))
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    assert float(again(step)) == float(schedule(step))
