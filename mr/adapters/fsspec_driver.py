"""From a URL to fsspec's driver for it, and the place that the URL names there.

    file:///srv/shared    memory://    sftp://user:password@host/dir    tahoe+http://host:3456/URI:DIR2:…
    s3://bucket/dir?key=…&secret=…&endpoint_url=http://127.0.0.1:9000

What follows a `?` goes to the driver by name: text, or JSON where it is `true`, `false` or an object. Importing this
module does not import fsspec, which takes a tenth of a second.
"""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mr.addresses import FileSystemUrl
from mr.errors import ConfigError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

TAHOE = "mr.adapters.file_systems.tahoe.TahoeFileSystem"


def check(url: FileSystemUrl, variable: str) -> None:
    """See whether there is a driver, without importing it. `variable` is where the URL is from. Raises: ConfigError."""
    check_fsspec(url, variable)
    from fsspec import available_protocols, register_implementation
    from fsspec.registry import known_implementations

    # The entry point says the same, where mr is installed and not only on the path.
    for scheme in ("tahoe+http", "tahoe+https"):
        register_implementation(scheme, TAHOE, clobber=True)
    protocol = url.scheme.partition("::")[0]
    if protocol not in available_protocols():
        raise _problem(url, variable, "a scheme that fsspec knows, such as file, memory, sftp, s3 or tahoe+http")
    known = known_implementations.get(protocol, {})
    if importlib.util.find_spec(known.get("class", "mr").partition(".")[0]) is None:
        needed = f"the package of its driver to be installed ({known.get('err', 'see fsspec')})"
        raise _problem(url, variable, needed)


def check_fsspec(url: FileSystemUrl, variable: str) -> None:
    """See whether fsspec is there. Raises: ConfigError."""
    if importlib.util.find_spec("fsspec") is None:
        needed = "what needs mr's extra fs, which is not installed: pip install 'mr-jobs[fs]'"
        raise _problem(url, variable, needed)


def open_driver(url: FileSystemUrl, variable: str) -> tuple[AbstractFileSystem, str]:
    """The driver, and the URL's place in its words. Most drivers ask nothing of a server yet.

    Raises: ConfigError when there is no driver for the URL, or the driver refuses what the URL says; OSError.
    """
    check(url, variable)
    from fsspec.core import url_to_fs

    text, _, query = url.text.partition("?")
    # Not as a form: secrets are full of `+`, and nobody means a space by it.
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    options = {unquote(name): _value(unquote(value)) for name, _, value in pairs}
    try:
        backend, base = url_to_fs(text, **options)
    except ImportError as error:
        raise _problem(url, variable, f"a driver that can be imported ({error})") from error
    except (TypeError, ValueError) as error:
        raise _problem(url, variable, f"what its driver takes ({error})") from error
    except OSError:
        raise
    except Exception as error:  # some drivers connect here, and any has exceptions of its own
        raise OSError(f"the driver of {variable} failed: {type(error).__name__}: {error}") from error
    return backend, str(base)


def _value(text: str) -> Any:
    if text in ("true", "false") or text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _problem(url: FileSystemUrl, variable: str, expected: str) -> ConfigError:
    return ConfigError([f"{variable}: expected {expected}, got: {url}"])
