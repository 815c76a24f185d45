"""`find_optimizer` and `find_optimizers`, through whatever wraps."""

import types

import pytest

import tf_lamb
from tests.callbacks import kerases
from tests.callbacks.kerases import (
    KERASES,
    POLICIES,
    WITH_MULTI_OPTIMIZER,
    fit,
    kernels_and_biases,
    make_model,
)
from tf_lamb import wrapped


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", KERASES)
def test_the_optimizer_of_a_model(name, policy):
    front = kerases.front_end(name)
    ours = front.LAMB(0.05)
    model = make_model(front, policy, ours)
    assert (model.optimizer is ours) == (policy == "float32")
    for wrapper in (model, model.optimizer, ours):
        assert wrapped.find_optimizer(wrapper) is ours
        assert wrapped.find_optimizers(wrapper) == [ours]
    fit(model)
    found = tf_lamb.find_optimizer(model)
    assert found is ours
    assert list(found.trust_ratios) == kerases.PATHS
    assert found.skipped_steps == 0
    assert "hidden/kernel" in found.describe()


@pytest.mark.parametrize("name", KERASES)
def test_a_derived_class_is_ours(name):
    front = kerases.front_end(name)

    class Mine(front.LARS):
        pass

    ours = Mine(0.1)
    assert tf_lamb.find_optimizer(make_model(front, optimizer=ours)) is ours


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", KERASES)
def test_none_of_ours(name, policy):
    front = kerases.front_end(name)
    model = make_model(front, policy, front.keras.optimizers.SGD(0.1))
    assert wrapped.find_optimizers(model) == []
    with pytest.raises(ValueError) as error:
        wrapped.find_optimizer(model)
    (line,) = str(error.value).splitlines()
    names = [type(model).__name__]
    if policy == "mixed_float16":
        names.append(type(model.optimizer).__name__)
    expected = f"no LAMB or LARS of tf_lamb in {' > '.join([*names, 'SGD'])}; "
    assert line.startswith(f"find_optimizer: found {expected}")
    assert "compile the model with one" in line


@pytest.mark.parametrize("name", KERASES)
def test_a_model_that_is_not_compiled(name):
    front = kerases.front_end(name)
    model = front.keras.Sequential([front.keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="in Sequential; compile the model"):
        wrapped.find_optimizer(model)


@pytest.mark.parametrize("thing", [None, "lamb", 3, {"optimizer": "lamb"}])
def test_what_is_no_model(thing):
    name = type(thing).__name__
    with pytest.raises(ValueError, match=f"of tf_lamb in {name}; compile"):
        wrapped.find_optimizer(thing)


def test_wrappers_around_each_other_are_walked_once():
    ours = types.SimpleNamespace()
    circle = types.SimpleNamespace(optimizer=ours)
    ours.inner_optimizer = circle
    assert wrapped.find_optimizers(circle) == []
    with pytest.raises(ValueError, match="SimpleNamespace > SimpleNamespace;"):
        wrapped.find_optimizer(circle)


def test_a_model_in_data_parallel():
    ours = next(
        kerases.front_end(name).LAMB(0.1, name="inside") for name in KERASES
    )
    model = types.SimpleNamespace(optimizer=ours)
    parallel = types.SimpleNamespace(module=model)
    assert wrapped.find_optimizer(parallel) is ours


@pytest.mark.parametrize("name", WITH_MULTI_OPTIMIZER)
def test_several_in_a_multi_optimizer(name):
    front = kerases.front_end(name)
    optimizer, lamb, lars = kernels_and_biases(front)
    model = make_model(front, optimizer=optimizer)
    # Which optimizers a function gives is known once variables are.
    with pytest.raises(ValueError, match="MultiOptimizer.*once it is built"):
        wrapped.find_optimizer(model)
    fit(model)
    assert wrapped.find_optimizers(model) == [lamb, lars]
    with pytest.raises(ValueError) as error:
        wrapped.find_optimizer(model)
    (line,) = str(error.value).splitlines()
    assert "found 2 optimizers of tf_lamb in Functional" in line
    assert f"LAMB 'first', LARS '{lars.name}'" in line
    assert "find_optimizers" in line


@pytest.mark.parametrize("name", WITH_MULTI_OPTIMIZER)
def test_one_beside_a_stock_optimizer(name):
    front = kerases.front_end(name)
    stock = front.keras.optimizers.SGD(0.1)
    optimizer, lamb, _ = kernels_and_biases(front, biases=stock)
    scaler = front.keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(make_model(front).trainable_variables)
    assert wrapped.find_optimizer(scaler) is lamb
