"""The environment of an executor: next to nothing, because handlers print it, and hand it on to what they start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import mr

_NAMES = ("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH")
_PREFIXES = ("LC_", "PYTHON")


def of_executor(environ: Mapping[str, str], directory: str) -> dict[str, str]:
    """What an executor gets of the worker's; mr comes first on its path, temporary files go into its directory."""
    kept = {name: value for name, value in environ.items() if name in _NAMES or name.startswith(_PREFIXES)}
    path = [str(Path(mr.__file__).resolve().parent.parent), *kept.get("PYTHONPATH", "").split(os.pathsep)]
    kept["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
    return kept | {"TMPDIR": directory}
