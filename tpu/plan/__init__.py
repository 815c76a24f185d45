"""Plans a training job on TPUs that are not there, by their compiler."""

import os

# JAX reads these when it is imported: the front end is its CPU, and libtpu must
# not look for the machine that it is not on.
os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
os.environ["TPU_ACCELERATOR_TYPE"] = "v3-8"
# Nothing runs on a TPU here, so that several may compile at once.
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
