"""From the URL of the shared file system to one workflow's directory on it.

    file:///srv/shared    memory://    sftp://user:password@host/dir    tahoe+http://host:3456/URI:DIR2:…
    s3://bucket/dir?key=…&secret=…&endpoint_url=http://127.0.0.1:9000
    class://package.module.Factory        its get_instance() gives a file system of fsspec

What follows a `?` goes to the driver by name: text, or JSON where it is `true`, `false` or an object. Nothing else
reaches drivers in an executor, because executors have no environment worth the name.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mr.addresses import FileSystemUrl
from mr.errors import ConfigError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from mr.adapters.file_systems.volume import Volume

VARIABLE = "MR_FS_URL"
TAHOE = "mr.adapters.file_systems.tahoe.TahoeFileSystem"


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
    backend, base = _driver(url)
    kind = LocalVolume if url.scheme in ("file", "local") else Volume
    return kind(backend, base, workflow)


def check(url: FileSystemUrl) -> None:
    """See whether there is a driver, without importing it. Raises: ConfigError."""
    if importlib.util.find_spec("fsspec") is None:
        raise _problem(url, "what needs mr's extra fs, which is not installed: pip install 'mr-jobs[fs]'")
    from fsspec import available_protocols, register_implementation
    from fsspec.registry import known_implementations

    # The entry point says the same, where mr is installed and not only on the path.
    for scheme in ("tahoe+http", "tahoe+https"):
        register_implementation(scheme, TAHOE, clobber=True)
    if url.scheme == "class":
        return
    protocol = url.scheme.partition("::")[0]
    if protocol not in available_protocols():
        raise _problem(url, "a scheme that fsspec knows, such as file, memory, sftp, s3 or tahoe+http")
    known = known_implementations.get(protocol, {})
    if importlib.util.find_spec(known.get("class", "mr").partition(".")[0]) is None:
        raise _problem(url, f"the package of its driver to be installed ({known.get('err', 'see fsspec')})")


def _driver(url: FileSystemUrl) -> tuple[AbstractFileSystem, str]:
    from fsspec.core import url_to_fs

    text, _, query = url.text.partition("?")
    # Not as a form: secrets are full of `+`, and nobody means a space by it.
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    options = {unquote(name): _value(unquote(value)) for name, _, value in pairs}
    try:
        backend, base = url_to_fs(text, **options)
    except ImportError as error:
        raise _problem(url, f"a driver that can be imported ({error})") from error
    except (TypeError, ValueError) as error:
        raise _problem(url, f"what its driver takes ({error})") from error
    except OSError:
        raise
    except Exception as error:  # some drivers connect here, and any has exceptions of its own
        raise OSError(f"the shared file system failed: {type(error).__name__}: {error}") from error
    return backend, str(base)


def _value(text: str) -> Any:
    if text in ("true", "false") or text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


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


def _problem(url: FileSystemUrl, expected: str) -> ConfigError:
    return ConfigError([f"{VARIABLE}: expected {expected}, got: {url}"])
