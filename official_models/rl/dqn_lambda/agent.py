"""What is computed on the device: actions, the values of a block set, updates.

`N` blocks of `T` transitions, `h` frames of an observation, `A` actions; the
arrays are those of `replay.Blocks`.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from official_models.rl.dqn_lambda.networks import Shape
from official_models.rl.dqn_lambda.replay import Blocks


class Agent:
    """A network and its optimizer.

    The forward passes are compiled by XLA; the update is not, as XLA's
    gradients of small convolutions were slower on processors than TensorFlow's
    own.

    Args:
        network: uint8 [B, H, W, h * C] -> float32 [B, A].
        optimizer: Built.
        shape: What the network was made for.
        component_clip: Largest absolute value of a component of the gradient;
            0 for no clipping.
    """

    def __init__(
        self,
        network: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        shape: Shape,
        component_clip: float,
    ):
        self.network, self.optimizer = network, optimizer
        self.shape, self.component_clip = shape, component_clip
        self._act = greedy_policy(network)
        self._values = tf.function(self._values_of, jit_compile=True)
        self._update = tf.function(self._update_on)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """The greedy actions [E] of observations [E, H, W, h * C]."""
        return self._act(observations).numpy()

    def values(self, blocks: Blocks) -> np.ndarray:
        """Q of every state of a block set, [N, T + 1, A], in one call."""
        return self._values(
            tf.constant(blocks.frames), tf.constant(blocks.seen)
        ).numpy()

    def train(
        self, blocks: Blocks, returns: np.ndarray, indices: np.ndarray
    ) -> np.ndarray:
        """Updates on minibatches of a block set's transitions.

        Args:
            blocks: The set.
            returns: [N, T], what Q(s, a) is to become.
            indices: [K, B], each from 0 to N * T - 1.

        Returns:
            [K], the mean squared error of each minibatch before its update.
        """
        frames = tf.constant(blocks.frames)
        data = (
            tf.reshape(frames, (-1, *frames.shape[2:])),
            tf.constant(blocks.seen),
            tf.constant(np.ravel(blocks.actions)),
            tf.constant(np.ravel(returns).astype("float32")),
        )
        losses = [self._update(*data, tf.constant(row)) for row in indices]
        return tf.stack(losses).numpy()

    def _values_of(self, frames, seen):
        """frames [N, h + T, H, W, C], seen [N, T + 1, h]."""

        def of_block(block):
            states = block[1].shape[0]
            stacked = [
                block[0][k : k + states]
                * tf.cast(block[1][:, k, None, None, None], "uint8")
                for k in range(self.shape.history)
            ]
            return self.network(tf.concat(stacked, -1), training=False)

        # A block at a time: the stacked frames of all would be h times theirs.
        return tf.map_fn(
            of_block, (frames, seen), fn_output_signature="float32"
        )

    def _update_on(self, frames, seen, actions, returns, indices):
        """frames [N * (h + T), H, W, C]; the others [N * T]; indices [B]."""
        history = self.shape.history
        length = seen.shape[1] - 1
        block, offset = indices // length, indices % length
        first = block * (length + history) + offset
        stacked = tf.gather(
            frames, first[:, None] + tf.range(history, dtype=first.dtype)
        )
        known = tf.gather_nd(seen, tf.stack([block, offset], -1))
        stacked *= tf.cast(known[..., None, None, None], "uint8")
        stacked = tf.transpose(stacked, (0, 2, 3, 1, 4))
        observations = tf.reshape(stacked, (-1, *self.shape.observation))
        taken = tf.one_hot(tf.gather(actions, indices), self.shape.actions)
        target = tf.gather(returns, indices)
        variables = self.network.trainable_variables
        with tf.GradientTape() as tape:
            q = tf.reduce_sum(
                self.network(observations, training=True) * taken, axis=-1
            )
            loss = tf.reduce_mean(tf.square(target - q))
        gradients = tape.gradient(loss, variables)
        if limit := self.component_clip:
            gradients = [tf.clip_by_value(g, -limit, limit) for g in gradients]
        self.optimizer.apply(gradients, variables)
        return loss


def greedy_policy(network: keras.Model) -> tf.function:
    """observations [E, H, W, h * C] -> the actions [E] of largest value."""

    @tf.function(jit_compile=True)
    def act(observations):
        return tf.argmax(network(observations, training=False), axis=-1)

    return act


def sampling_policy(
    network: keras.Model, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """observations [E, H, W, h * C] -> actions [E], drawn from the policy.

    Args:
        network: Of logits and values, as `networks.make_actor_critic` makes it.
        seed: Of what is drawn.
    """

    @tf.function(jit_compile=True)
    def logits_of(observations):
        return network(observations, training=False)[0]

    rng = np.random.default_rng(seed)

    def act(observations):
        logits = logits_of(observations).numpy()
        return (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)

    return act
