"""A model small enough to count by hand: y = x W, momentum, squared error."""

import keras

import tf_lamb

INPUTS, OUTPUTS = 256, 512
LAYOUTS = {".*dense.*/kernel": (None, "model")}
PARAMETERS = INPUTS * OUTPUTS


def build(batch_size):
    """For `--model tests.tpu.plan.linear:build`."""
    model = keras.Sequential(
        [keras.Input((INPUTS,)), keras.layers.Dense(OUTPUTS, use_bias=False)]
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9), loss="mean_squared_error"
    )
    return model, tuple(
        keras.KerasTensor((batch_size, n)) for n in (INPUTS, OUTPUTS)
    )


def build_lamb(batch_size):
    """The same with LAMB."""
    model, batch = build(batch_size)
    model.compile(tf_lamb.LAMB(0.1), loss="mean_squared_error")
    return model, batch


def build_without_optimizer(batch_size):
    """Not compiled."""
    model, batch = build(batch_size)
    return keras.Model(model.inputs, model.outputs), batch


def build_that_fails(batch_size):
    """Raises what no caller expects."""
    return {}[f"batch of {batch_size}"]


def build_unequal_shapes(batch_size):
    """Its labels are one column short."""
    model, (x, _) = build(batch_size)
    return model, (x, keras.KerasTensor((batch_size, OUTPUTS - 1)))


def build_wrong_batch(batch_size):
    """Its batch is one example short."""
    return build(batch_size - 1)
