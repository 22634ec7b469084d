"""Sphinx: build with `sphinx-build docs build/docs` after `pip install -e .[dev]`."""

import mr

project = "mr"
author = "The mr authors"
copyright = "2026, The mr authors"
version = release = mr.__version__

extensions: list[str] = []
root_doc = "index"
html_theme = "alabaster"
nitpicky = True
