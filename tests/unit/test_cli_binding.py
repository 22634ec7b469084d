"""Where the front end shall listen: what stands in the way is told in one line, with the next step."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mr.addresses import Bind, Endpoint
from mr.cli import binding, exits
from mr.cli.binding import free, is_inherited, wait_until_free
from mr.cli.exits import Refused
from mr.cli.main import program


@pytest.fixture
def taken() -> Iterator[Bind]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield Bind(endpoint=Endpoint("127.0.0.1", listener.getsockname()[1]))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "PATIENCE_S", 0.0)


@pytest.mark.parametrize("command", ["dev", "web"])
@pytest.mark.usefixtures("impatient")
def test_a_taken_port_is_told_with_who_has_it_and_the_next_step(command: str, taken: Bind) -> None:
    assert taken.endpoint is not None
    result = CliRunner().invoke(program, [command, "--bind", str(taken)])
    assert result.exit_code == exits.REFUSED
    refusal, hint = result.stderr.splitlines()[-2:]
    assert f"{taken} is taken by process {os.getpid()} ({os.path.basename(sys.orig_argv[0])}" in refusal
    assert f"mr {command} --bind 127.0.0.1:{taken.endpoint.port % 65535 + 1} (or MR_WEB_BIND)" in hint


def test_a_port_that_becomes_free_is_waited_for(taken: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            monkeypatch.setattr(binding, "_problem", lambda bind: None)

    monkeypatch.setattr("mr.cli.binding.time.sleep", sleep)
    wait_until_free(taken, "mr web", told.append)
    assert len(looks) == 3
    assert told == [f"{taken} is taken{binding._by(taken)}; trying again for 5 s"]


def test_port_0_is_a_free_one() -> None:
    found = free(Bind(endpoint=Endpoint("127.0.0.1", 0)), "mr dev").endpoint
    assert found is not None
    assert found.port > 0


@pytest.mark.parametrize(
    ("port", "problem", "hint"),
    [
        (80, PermissionError(errno.EACCES, "Permission denied"), "mr web --bind 127.0.0.1:8080"),
        (8080, OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "the host must be one of this machine"),
        (8080, socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "such as 127.0.0.1:8080"),
    ],
)
def test_what_an_address_cannot_be_is_told(
    port: int, problem: OSError, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(endpoint: Endpoint) -> None:
        raise problem

    monkeypatch.setattr(binding, "_bound", refuse)
    with pytest.raises(Refused, match=f"cannot listen at 127.0.0.1:{port}: {problem.strerror}") as caught:
        free(Bind(endpoint=Endpoint("127.0.0.1", port)), "mr web")
    assert hint in caught.value.hint


def test_a_path_of_a_socket_is_tried_as_well(tmp_path: Path) -> None:
    place = Bind(path=str(tmp_path / "web.sock"))
    assert free(place, "mr web") == place
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place.path)
        listener.listen()
        with pytest.raises(Refused, match="is taken"):
            free(place, "mr web")
    assert free(place, "mr web") == place, "a socket that nobody listens to is replaced"


def test_what_a_path_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No such file") as caught:
        free(Bind(path=str(tmp_path / "run" / "web.sock")), "mr web")
    assert caught.value.hint.endswith(f"mkdir -p {tmp_path / 'run'}")
    other = tmp_path / "notes"
    other.write_text("mine")
    with pytest.raises(Refused, match="no socket"):
        free(Bind(path=str(other)), "mr web")


@pytest.mark.usefixtures("impatient")
def test_only_who_listens_says_that_others_can_reach_it(taken: Bind, tmp_path: Path) -> None:
    assert taken.endpoint is not None
    open_to_all = {"MR_WEB_BIND": f"0.0.0.0:{taken.endpoint.port}", "MR_STORE": f"sqlite:///{tmp_path}/mr.db"}
    assert "MR_AUTH is off" in CliRunner().invoke(program, ["web"], env=open_to_all).stderr
    assert "MR_AUTH is off" in CliRunner().invoke(program, ["doctor"], env=open_to_all).stdout
    assert "MR_AUTH" not in CliRunner().invoke(program, ["workflow", "list"], env=open_to_all).stderr


def test_who_is_born_with_listeners_needs_no_place() -> None:
    assert is_inherited({"LISTEN_FDS": "1"})
    assert is_inherited({"GUNICORN_FD": "3"})
    assert not is_inherited({})
