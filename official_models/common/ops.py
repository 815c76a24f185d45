"""The array functions the models use, under the names of `keras.ops`.

A model imports this module and never `keras.ops` itself, so that one place
decides which library serves it.
"""

from keras import name_scope as name_scope
from keras.ops import *  # noqa: F403
