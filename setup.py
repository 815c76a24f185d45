"""Packaging of tf_lamb; all that there is to say is in pyproject.toml."""

from setuptools import setup

setup()
