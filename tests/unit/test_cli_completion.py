"""`mr completion`: the scripts, and what shells are offered."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mr.cli import names
from mr.cli.main import PLACES, program
from mr.wiring import Parts
from tests.unit.command_line import done, mr
from tests.unit.test_cli import folder, parts, store, submitted, workflow

__all__ = ["folder", "parts", "store", "workflow"]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not look like a silent store."""
    monkeypatch.setattr(names, "PATIENCE_S", 30.0)


def offers(line: str) -> list[str]:
    """What bash gets for the last word of a line."""
    env = {"_MR_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    result = CliRunner().invoke(program, [], env=env, prog_name="mr")
    assert result.stderr == ""
    return [offer.partition(",")[2] for offer in result.stdout.splitlines() if offer]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_it_can_read(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(done("completion", shell).stdout)
    assert "_MR_COMPLETE" in script.read_text()
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n", script], check=True, capture_output=True)


def test_a_shell_that_nobody_knows_is_refused() -> None:
    assert mr("completion", "csh").exit_code == 2


def test_commands_are_offered(store: str) -> None:
    assert offers("mr ") == list(PLACES)
    assert offers("mr re") == ["request"]
    assert "sync" in offers("mr handler s")
    assert "--state" in offers("mr request list --s")
    assert offers("mr request list --state fa") == ["failed"]
    assert offers("mr nonsense x") == []


def test_names_are_offered_from_the_store(workflow: str) -> None:
    r = submitted("a=1")
    assert offers("mr handler list ") == ["w"]
    assert offers("mr workflow show ") == ["w"]
    assert offers("mr request list ") == ["w"]
    assert offers("mr handler show w ") == ["count", "split", "total"]
    assert offers("mr handler show w s") == ["split"]
    assert offers("mr step show w ") == ["count", "split"]
    assert offers("mr step create w new text ") == ["count", "split", "total"]
    assert offers("mr job create w new text ") == ["count", "split"]
    assert offers("mr job show w ") == ["j"]
    assert offers("mr run ") == ["w/j"]
    assert offers("mr run w/") == ["w/j"]
    assert offers(f"mr request show {r[:3]}") == [r]
    assert offers("mr tree w/") == [f"w/{r}"]
    assert offers(f"mr request rm {r} {r[:4]}") == [r]
    assert offers(f"mr logs {r[:4]}") == [r]


def test_nothing_is_offered_where_nothing_can_be_known(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offers("mr handler list ") == []
    assert not (tmp_path / "mr.db").exists()
    monkeypatch.setenv("MR_STORE", "etcd3://127.0.0.1:1")
    assert offers("mr handler list ") == []
    monkeypatch.setenv("MR_EXECUTORS", "many")
    assert offers("mr handler list ") == []


def test_a_workflow_that_does_not_exist_has_nothing_to_offer(workflow: str) -> None:
    assert offers("mr handler show nope ") == []
    assert offers("mr run nope/") == []


def test_a_slow_store_is_not_waited_for(workflow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def slow(*_: Any) -> list[str]:
        answered.wait(60.0)
        return ["late"]

    monkeypatch.setattr(names, "PATIENCE_S", 0.01)
    monkeypatch.setattr("mr.services.registry.Registry.list_workflows", slow)
    try:
        assert offers("mr handler list ") == []
    finally:
        answered.set()


def test_offers_are_limited(workflow: str, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "OFFERED_MAX", 2)
    for _ in range(3):
        submitted("a=1")
    assert len(offers("mr tree ")) == 2
