"""Listings of the documentation, and running them.

    $ command            is run; lines after it, up to the next `$`, are what it has to print, with `…` for anything
    <<'END' … END        belongs to the command above, and so do lines after a `\\`
    no `$` at all        a picture, a file, an answer: counted, not run; handlers among them are checked

A page is one shell session in a folder of its own, with a store of its own. `REQUEST` stands for the request that was
posted last. A listing that cannot be run here says so above it, in a comment of the page: `.. not run: why`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
_BLOCK = re.compile(r"^(\s*)(?:\.\. (?:code-block|code)::\s*(\S*)|(?!\.\. ).*::)\s*$")
_NOT_RUN = re.compile(r"^\.\. not run: (.+)$")
_HEREDOC = re.compile(r"<<-?\s*'?\"?(\w+)'?\"?")
_SERVERS = re.compile(r"^(?:\w+=\S+ )*(?:mr (?:dev|web|worker)\b|mr_start_gunicorn_|mr_http_notification_listen)")


class Listing(msgspec.Struct, frozen=True):
    """An indented block: the page, its first line (from 1), its text, and why it is not run, if it says so."""

    page: str
    line: int
    text: str
    language: str = ""
    not_run: str = ""

    @property
    def is_session(self) -> bool:
        """Whether it shows commands."""
        return any(line.startswith("$ ") for line in self.text.splitlines())


class Command(msgspec.Struct):
    """What is typed, where it stands, and what is to be seen; None where nothing is shown."""

    line: int
    text: str
    shown: list[str] = []


def pages() -> list[Path]:
    """README and all pages of `docs/`."""
    return [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]


def listings(page: Path) -> Iterator[Listing]:
    """The listings of a page, in order."""
    lines = page.read_text().splitlines()
    name = str(page.relative_to(ROOT))
    at, why = 0, ""
    while at < len(lines):
        found = _NOT_RUN.match(lines[at])
        if found:
            why = found[1]
            while at + 1 < len(lines) and lines[at + 1].startswith("   ") and lines[at + 1].strip():
                at += 1
                why += f" {lines[at].strip()}"
        opened = _BLOCK.match(lines[at])
        at += 1
        if not opened:
            continue
        indent = len(opened[1])
        while at < len(lines) and (not lines[at].strip() or re.match(r"\s+:\w+:", lines[at])):
            at += 1
        start = at
        while at < len(lines) and (not lines[at].strip() or len(lines[at]) - len(lines[at].lstrip()) > indent):
            at += 1
        block = lines[start:at]
        if block:
            depth = min(len(line) - len(line.lstrip()) for line in block if line.strip())
            text = "\n".join(line[depth:] for line in block).rstrip()
            yield Listing(name, start + 1, text, opened[2] or "", why)
            why = ""


def commands(listing: Listing) -> list[Command]:
    """What a session types."""
    found: list[Command] = []
    lines = iter(enumerate(listing.text.splitlines(), listing.line))
    for number, line in lines:
        if line.startswith("$ "):
            text = line[2:]
            while text.endswith("\\"):
                text += "\n" + next(lines)[1]
            if here := _HEREDOC.search(text):
                for _, more in lines:
                    text += "\n" + more
                    if more.strip() == here[1]:
                        break
            found.append(Command(number, text, []))
        elif found and line.strip():
            found[-1].shown.append(line)
    return found


class Session:
    """A shell in which the commands of a page are typed."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=folder, env=dict(environ), text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=1,
        )  # fmt: skip
        self._last_request = ""
        self._workers = 0

    def type(self, text: str) -> tuple[int, str]:
        """Run a command: its exit code, and what it printed."""
        text = self._here(text)
        if _SERVERS.match(text):
            return self._serve(text)
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        mark = f"--{os.urandom(8).hex()}--"
        self._shell.stdin.write(f"{text}\n_code=$?; echo; echo {mark} $_code\n")
        self._shell.stdin.flush()
        printed: list[str] = []
        for line in self._shell.stdout:
            if line.startswith(mark):
                output = "".join(printed)[:-1]
                self._note(output)
                return int(line.split()[1]), output
            printed.append(line)
        raise AssertionError(f"the shell ended with: {text}\n{''.join(printed)}")

    def close(self) -> None:
        """End it with all that it started, which is one process group."""
        group = self._shell.pid
        deadline = time.monotonic() + PATIENCE_S
        how: int = signal.SIGTERM
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(group, how)
                self._shell.poll()
                how = signal.SIGKILL if time.monotonic() > deadline else 0
                time.sleep(0.02)
        self._shell.communicate()

    def _serve(self, text: str) -> tuple[int, str]:
        """Start a server, and return when it is there; it goes on until the page ends."""
        text = text.partition("#")[0].strip()
        is_front_end = not re.search(r"\bmr worker\b", text)
        brings_worker = not re.search(r"\bmr web\b", text)
        if re.search(r"\bmr (dev|web)\b", text) and "--bind" not in text:
            text += f" --bind 127.0.0.1:{self.port}"
        if text.startswith("mr_start_"):
            text = f"MR_WEB_BIND=127.0.0.1:{self.port} {text}"
        code, printed = self.type(f"eval {_quoted(text)} > server-$RANDOM.log 2>&1 &")
        deadline = time.monotonic() + PATIENCE_S
        while is_front_end and not _listens(self.port):
            assert time.monotonic() < deadline, f"{text} does not listen: {self._logs()}"
            time.sleep(0.05)
        self._workers += brings_worker
        while len(json.loads(self.type("mr status --json")[1])["workers"]) < self._workers:
            assert time.monotonic() < deadline, f"{text} brings no worker: {self._logs()}"
        return code, printed

    def _here(self, text: str) -> str:
        """The command with names of the page turned into those of this session."""
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}").replace(
            "localhost:8080", f"localhost:{self.port}"
        )
        text = re.sub(r"(?<![\w./])/tmp/", f"{self._folder}/tmp/", text)
        return re.sub(r"\bREQUEST\b", lambda _: self._request(), text)

    def _request(self) -> str:
        """The request that was posted last, as the store has it."""
        assert self._last_request, "no request was posted on this page yet"
        return self._last_request

    def _note(self, output: str) -> None:
        for found in re.findall(r"\b[0-9a-f]{40}\b", output):
            self._last_request = found

    def _logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in self._folder.glob("server-*.log"))


def differs(shown: list[str], printed: str) -> str:
    """How what is shown differs from what was printed; empty if it does not. `…` stands for anything."""
    pattern = r"\n".join(
        ".*" if line.strip() == "…" else re.escape(line.rstrip()).replace("…", ".*") + r"\s*" for line in shown
    )
    actual = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    if re.fullmatch(pattern, actual, re.DOTALL):
        return ""
    return f"shown:\n{chr(10).join(shown)}\nprinted:\n{actual}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
