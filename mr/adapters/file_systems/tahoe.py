"""Tahoe-LAFS for fsspec, over the web API of a Tahoe node: `tahoe+http://host:3456/URI:DIR2:…[/dir]`.

A Tahoe grid is reached by capabilities: who knows the URI of a directory may read and write all that is below it, and
there is nothing else to know. So the URI is a secret, also from logs: what an error of ours says has neither URI nor
URL, and it hides the vendor's error, whose text has both.

Files are immutable: one that is open for reading stays as it was, whatever is written under its name, because reading
goes by the file's own URI. Writing collects bytes in a temporary file, and the file is there, whole, when it is closed.
A copy is another name for the same URI and costs nothing.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from typing import IO, Any, NoReturn
from urllib.parse import quote, unquote, urlsplit

import urllib3
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from mr import codec

CONNECT_S = 5.0
ANSWER_S = 300.0
"""An upload is answered when all its shares are placed, which takes as long as the slowest server of the grid."""
MEMORY_BYTES = 4 * 1024 * 1024
"""What is written stands in memory up to here, then in a file."""


class TahoeFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec brings no types
    """A directory of Tahoe, named by its URI. `webapi` is the URL of a node's web API.

    Raises: FileNotFoundError, FileExistsError, NotADirectoryError; ConnectionError when the node does not answer;
    OSError for what else it says, such as too few servers.
    """

    protocol = ("tahoe+http", "tahoe+https")
    root_marker = ""

    def __init__(self, webapi: str, dir_uri: str, **options: Any) -> None:
        super().__init__(webapi=webapi, dir_uri=dir_uri, **options)
        self._webapi, self._uri = webapi.rstrip("/"), dir_uri
        # Nothing is sent twice: a repeated move finds its source gone.
        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S), maxsize=4
        )

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        for protocol in cls.protocol:
            if path.startswith(f"{protocol}://"):
                return _parts(path)[2]
        return path.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        webapi, uri, _ = _parts(path)
        return {"webapi": webapi, "dir_uri": uri}

    def unstrip_protocol(self, name: str) -> str:
        """Where a path is, without the secret."""
        return f"tahoe://{self._strip_protocol(name)}"

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        """What is known of an entry; `uri` is its read capability."""
        path = self._strip_protocol(path)
        return _entry(path, *self._look(path))

    def ls(self, path: str, detail: bool = True, **_options: Any) -> list[Any]:
        """What is in a directory."""
        path = self._strip_protocol(path)
        kind, node = self._look(path)
        if kind != "dirnode":
            found = [_entry(path, kind, node)]
        else:
            found = [_entry(f"{path}/{name}".lstrip("/"), *one) for name, one in node["children"].items()]
        return found if detail else [one["name"] for one in found]

    def mkdir(self, path: str, create_parents: bool = True, **_options: Any) -> None:
        """Make a directory; Tahoe makes its parents, too."""
        path = self._strip_protocol(path)
        if self.exists(path):
            _fail(errno.EEXIST, path)
        if not create_parents:
            self._look(self._parent(path))
        self._ask("POST", path, "t=mkdir")

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory and its parents."""
        try:
            self.mkdir(path)
        except FileExistsError:
            if not exist_ok or not self.isdir(path):
                raise

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        path = self._strip_protocol(path)
        if self.ls(path, detail=False):
            _fail(errno.ENOTEMPTY, path)
        self._ask("DELETE", path)

    def rm_file(self, path: str) -> None:
        """Unlink a file."""
        self._ask("DELETE", self._strip_protocol(path))

    def _rm(self, path: str) -> None:
        self.rm_file(path)

    def cp_file(self, path1: str, path2: str, **_options: Any) -> None:
        """Give a file another name."""
        uri = self.info(path1)["uri"]
        self._ask("PUT", self._strip_protocol(path2), "t=uri&replace=only-files", body=uri.encode())

    def mv(self, path1: str, path2: str, **_options: Any) -> None:
        """Rename; a file that is there is replaced."""
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        goal = quote(f"{self._uri}/{self._parent(target)}".rstrip("/"), safe="")
        names = f"from_name={quote(_name(source), safe='')}&to_name={quote(_name(target), safe='')}"
        self._ask("POST", self._parent(source), f"t=relink&{names}&to_dir={goal}&replace=only-files")

    def created(self, path: str) -> Any:
        """When it was made, in seconds."""
        return self.info(path)["created"]

    def modified(self, path: str) -> Any:
        """When its name was bound to it last, in seconds."""
        return self.info(path)["mtime"]

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> TahoeFile:
        return TahoeFile(self, path, mode, block_size or "default", **options)

    def read_range(self, uri: str, start: int, end: int) -> bytes:
        """Some bytes of a file."""
        return self._request("GET", f"/uri/{quote(uri)}", "", headers={"Range": f"bytes={start}-{end - 1}"})

    def upload(self, path: str, body: IO[bytes], size: int, *, is_new: bool) -> None:
        """Store a file; `is_new`: there may be none yet."""
        replace = "replace=false" if is_new else "replace=only-files"
        self._ask("PUT", path, replace, body=body, headers={"Content-Length": str(size)})

    def _look(self, path: str) -> tuple[str, dict[str, Any]]:
        kind, node = codec.decode(self._ask("GET", path, "t=json"), tuple[str, dict[str, Any]], where="Tahoe's answer")
        return kind, node

    def _ask(self, method: str, path: str, query: str = "", **more: Any) -> bytes:
        place = f"/uri/{quote(self._uri)}" + (f"/{quote(path)}" if path else "")
        return self._request(method, place, query, path=path, **more)

    def _request(self, method: str, place: str, query: str, *, path: str = "", **more: Any) -> bytes:
        url = self._webapi + place + (f"?{query}" if query else "")
        try:
            answer = self._pool.request(method, url, redirect=False, **more)
        except urllib3.exceptions.HTTPError as error:
            # Not `from error`: the URL in its text is a capability, and tracebacks are shown to clients.
            raise ConnectionError(f"Tahoe at {self._webapi} does not answer ({type(error).__name__})") from None
        if answer.status >= 400:
            self._refuse(answer.status, answer.data, path)
        return answer.data

    def _refuse(self, status: int, body: bytes, path: str) -> NoReturn:
        if status == 404:
            _fail(errno.ENOENT, path)
        if status == 400 and b"have no child" in body:
            _fail(errno.ENOTDIR, path)
        if status == 409:
            _fail(errno.ENOTDIR if b"file was in the way" in body else errno.EEXIST, path)
        # "410 Gone" and 500 begin with the name of Tahoe's exception; more of it may hold capabilities.
        first = body.strip().partition(b"\n")[0].partition(b":")[0][:80].decode("ascii", "replace")
        reason = first if first.isidentifier() else "no reason that can be shown"
        raise OSError(f"Tahoe at {self._webapi} answered {status} ({reason}) for {path!r}")


class TahoeFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec brings no types
    """A file of Tahoe, open for reading, or for writing from the beginning or behind what is there."""

    _collected: tempfile.SpooledTemporaryFile[bytes]

    def _fetch_range(self, start: int, end: int) -> bytes:
        found: bytes = self.fs.read_range(self.details["uri"], start, end)
        return found

    def _initiate_upload(self) -> None:
        self._collected = tempfile.SpooledTemporaryFile(MEMORY_BYTES)
        if self.mode == "ab" and self.fs.exists(self.path):
            with self.fs.open(self.path, "rb") as before:
                while piece := before.read(MEMORY_BYTES):
                    self._collected.write(piece)

    def _upload_chunk(self, final: bool = False) -> bool:
        self._collected.write(self.buffer.getvalue())
        if final:
            with self._collected as collected:
                size = collected.tell()
                collected.seek(0)
                self.fs.upload(self.fs._strip_protocol(self.path), collected, size, is_new=self.mode == "xb")
        return True


def _parts(url: str) -> tuple[str, str, str]:
    """Web API, URI and path of a URL. Raises: ValueError."""
    split = urlsplit(url)
    place = unquote(split.path).lstrip("/").removeprefix("uri/")
    uri, _, path = place.partition("/")
    if not split.netloc or not uri.startswith("URI:DIR2"):
        raise ValueError("tahoe+http://host:port/URI:DIR2:…")  # and not what it was: most of it is secret
    return f"{split.scheme.removeprefix('tahoe+')}://{split.netloc}", uri, path.strip("/")


def _entry(path: str, kind: str, node: Mapping[str, Any]) -> dict[str, Any]:
    times = node.get("metadata", {}).get("tahoe", {})
    return {
        "name": path,
        "type": "directory" if kind == "dirnode" else "file" if kind == "filenode" else "other",
        "size": node.get("size") or 0,
        "uri": node.get("ro_uri", ""),
        "created": times.get("linkcrtime"),
        "mtime": times.get("linkmotime"),
    }


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _fail(number: int, path: str) -> NoReturn:
    raise OSError(number, os.strerror(number), path)
