"""From the URL of the shared file system to one workflow's directory on it.

`fsspec_driver` says which URLs there are; this one may also be `class://package.module.Factory`, whose
`get_instance()` gives a file system of fsspec. Nothing but the URL reaches drivers in an executor, because executors
have no environment worth the name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mr.adapters import fsspec_driver
from mr.addresses import FileSystemUrl
from mr.errors import ConfigError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from mr.adapters.file_systems.volume import Volume

VARIABLE = "MR_FS_URL"


def open_file_system(url: FileSystemUrl, workflow: str) -> Volume:
    """The file system of a workflow. Most drivers ask nothing of a server yet.

    Raises: ConfigError when there is no driver for the URL, or the driver refuses what the URL says; OSError.
    """
    check(url)
    from mr.adapters.file_systems.local import LocalVolume
    from mr.adapters.file_systems.volume import Volume

    if url.scheme == "class":
        backend = _of_class(url.text.removeprefix("class://"))
        return Volume(backend, backend.root_marker, workflow)
    backend, base = fsspec_driver.open_driver(url, VARIABLE)
    kind = LocalVolume if url.scheme in ("file", "local") else Volume
    return kind(backend, base, workflow)


def check(url: FileSystemUrl) -> None:
    """See whether there is a driver, without importing it. Raises: ConfigError."""
    if url.scheme == "class":
        fsspec_driver.check_fsspec(url, VARIABLE)
    else:
        fsspec_driver.check(url, VARIABLE)


def _of_class(path: str) -> AbstractFileSystem:
    from fsspec import AbstractFileSystem

    module, _, name = path.rpartition(".")
    try:
        backend = getattr(importlib.import_module(module), name)().get_instance()
    except Exception as error:  # code of the operator's own may raise anything
        problem = f"MR_FS_FACTORY_FQ_CLASS: {path} cannot be used: {type(error).__name__}: {error}"
        raise ConfigError([problem]) from error
    if not isinstance(backend, AbstractFileSystem):
        raise ConfigError(
            [f"MR_FS_FACTORY_FQ_CLASS: expected {path}().get_instance() to give a file system of fsspec, "
             f"got: {type(backend).__name__}"]
        )  # fmt: skip
    return backend
