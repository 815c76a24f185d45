"""The array functions the models use, under the names of `keras.ops`.

A model imports this module and never `keras.ops` itself, so that one place
decides which library serves it: `keras.ops` under Keras 3, else, up to
TensorFlow 2.15, TensorFlow's functions of the same names (those that the
models need). What Keras 2 and 3 have under other names, such as a weight that
stays uncast, has one name here: `keras3.py` describes it.
"""

import keras

KERAS_3 = int(keras.__version__.split(".")[0]) >= 3

if KERAS_3:
    from keras import name_scope as name_scope
    from keras.ops import *  # noqa: F403

    from official_models.common.ops.keras3 import *  # noqa: F403
else:
    from official_models.common.ops.keras2 import *  # noqa: F403
