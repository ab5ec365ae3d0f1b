"""Lets `pip install .` and older tools find the package; all metadata is in pyproject.toml."""

from setuptools import setup

setup()
