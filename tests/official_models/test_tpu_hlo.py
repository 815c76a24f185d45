"""What TensorFlow would send to a TPU: the train step's HLO, by its compiler.

XLA for a TPU takes static shapes, has no float64 worth the name, and a callback
to the host in a step would stop it. Compiled here for the CPU, before its own
optimization, which is where the three would show.
"""

import re

import numpy as np
import pytest
import tensorflow as tf

import tf_lamb
from official_models.nlp.bert import model as bert
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.pretraining.losses import (
    pretraining_losses,
    pretraining_metrics,
)
from official_models.vision.resnet import model as resnet

B, T, P = 4, 8, 2
CALLBACK = re.compile(
    r"\b(infeed|outfeed|send|recv)\(|custom_call_target=\"[^\"]*"
    r"(callback|PyFunc|HostCompute)[^\"]*\"",
    re.IGNORECASE,
)
# A bounded size. (set-dimension-size alone is how a static shape is asserted.)
DYNAMIC = re.compile(r"\b[a-z]+\d*\[[^\]]*<=")
FLOAT64 = re.compile(r"\bf64\[")


def offences(function, *arguments) -> list[str]:
    """Lines of a function's HLO that a TPU would not take.

    A function that XLA cannot compile at all raises.
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)
    hlo = compiled.experimental_get_compiler_ir(*arguments)(stage="hlo")
    return [
        line.strip()
        for line in hlo.splitlines()
        if any(p.search(line) for p in (CALLBACK, DYNAMIC, FLOAT64))
    ]


def bert_and_batch():
    config = BertConfig.of_size(
        "tiny",
        vocab_size=64,
        hidden_size=16,
        num_layers=1,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    model = bert.bert_pretrainer(config, dtype="mixed_bfloat16")
    model.compile(
        _lamb(["LayerNorm", "bias"]),
        loss=pretraining_losses(),
        weighted_metrics=pretraining_metrics(),
    )
    tokens = tf.ones((B, T), tf.int32)
    names = "input_ids", "input_mask", "segment_ids"
    x = dict.fromkeys(names, tokens)
    x["masked_lm_positions"] = tf.ones((B, P), tf.int32)
    y = {
        "masked_lm": tf.ones((B, P), tf.int32),
        "next_sentence": tf.ones((B,), tf.int32),
    }
    return model, (x, y, {k: tf.ones(v.shape) for k, v in y.items()})


def resnet_and_batch():
    model = resnet.build(
        "resnet8_cifar",
        image_size=8,
        num_classes=4,
        width=8,
        dtype="mixed_bfloat16",
    )
    model.compile(
        _lamb(["batch_norm", "bias"]),
        loss=resnet.SmoothedCrossEntropy(0.1),
        weighted_metrics=resnet.metrics(),
    )
    images = tf.ones((B, 8, 8, 3))
    return model, (images, tf.ones((B,), tf.int32))


def _lamb(exclusions):
    return tf_lamb.LAMB(
        tf_lamb.WarmupPolynomial(1e-2, total_steps=100, warmup_steps=10),
        weight_decay=0.01,
        exclude_from_weight_decay=exclusions,
        global_clipnorm=1.0,
    )


@pytest.mark.parametrize("make", [bert_and_batch, resnet_and_batch])
def test_a_train_step_is_one_that_a_tpu_takes(make):
    model, batch = make()
    model.optimizer.build(model.trainable_variables)
    model._symbolic_build(data_batch=batch)
    flat = tf.nest.flatten(batch)

    def step(*flat):
        model.train_step(tf.nest.pack_sequence_as(batch, flat))
        return model.optimizer.iterations.value

    assert offences(step, *flat) == []


def test_float64_is_found():
    def step(x):
        return tf.reduce_sum(tf.cast(x, tf.float64))

    assert offences(step, tf.ones((B,)))


def test_a_dynamic_shape_is_found():
    def step(x):
        return tf.reduce_sum(tf.boolean_mask(x, x > 0))

    assert offences(step, tf.ones((B,)))


def test_a_call_of_python_is_refused():
    def step(x):
        return tf.numpy_function(np.sin, [x], tf.float32)

    with pytest.raises(ValueError, match="PyFunc"):
        offences(step, tf.ones((B,)))


@pytest.mark.parametrize(
    "line",
    [
        "%x = token[] outfeed(%y, %after)",
        '%x = f32[] custom-call(), custom_call_target="xla_callback"',
    ],
)
def test_the_words_of_a_callback(line):
    assert CALLBACK.search(line)
