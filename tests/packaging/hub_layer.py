"""One training step through hub.KerasLayer with the installed tf_lamb."""

import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras

import tf_lamb

SHAPE = [None, 4]


def save_module(folder: str) -> None:
    """Saves a trainable matrix [4, 3] in the form of a TF2 Hub module."""
    module = tf.train.Checkpoint()
    w = tf.Variable(np.eye(4, 3, dtype="float32"))
    module.variables = module.trainable_variables = [w]
    module.regularization_losses = []
    module.__call__ = tf.function(
        lambda x: x @ w, input_signature=[tf.TensorSpec(SHAPE, tf.float32)]
    )
    tf.saved_model.save(module, folder)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_module(folder)
        layer = hub.KerasLayer(folder, trainable=True)
        model = tf_keras.Sequential([tf_keras.Input(4), layer])
    model.compile(optimizer=tf_lamb.LAMB(0.1), loss="mse")
    before = model.get_weights()[0]
    x = np.ones([8, 4], "float32")
    model.fit(x, 5 * x[:, :3], batch_size=8, epochs=1, verbose=0)
    step = np.linalg.norm(model.get_weights()[0] - before)
    assert np.isclose(step, 0.1 * np.linalg.norm(before), rtol=1e-3), step
    print("hub.KerasLayer: one step")


if __name__ == "__main__":
    main()
