"""What a worker knows of definitions, and what it says when they change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mr.model.capability import offer
from mr.ports.notifier import Notice
from mr.settings import WorkerSettings
from mr.wiring import Parts
from mr.worker.serving import Serving
from tests.unit import front_ends

HEADER = '# /// mr\n# handler_type = "{kind}"\n# required_capability = "{needs}"\n# ///\n"""{note}"""\n'
CODE = {
    "mapper": "def handle(arguments, ctx):\n    yield 1, 1\n",
    "reducer": "def handle(results, ctx):\n    yield 1, 1\n",
}


class Watcher:
    """A worker's part of it, and what it heard."""

    def __init__(self, parts: Parts, *offered: str) -> None:
        self.learnt: list[tuple[str, str]] = []
        self.told: list[Notice] = []
        self.topics: dict[str, str] = {}
        self.serving = Serving(
            parts.registry,
            WorkerSettings(executors=1),
            offer(offered or ("general",)),
            learn=lambda w, version: self.learnt.append((w, version)),
            on_change=lambda names, topics: self.topics.update(topics),
            tell=self.told.append,
            post=lambda call: call(),
        )


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = front_ends.parts(tmp_path / "store")
    made.registry.create_workflow("words", "")
    yield made
    made.close()


def push(parts: Parts, folder: Path, files: dict[str, tuple[str, str, str]]) -> None:
    """Sync a folder that has exactly these handlers: type, capability and description by name."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, (kind, needs, note) in files.items():
        (folder / f"{name}.py").write_text(HEADER.format(kind=kind, needs=needs, note=note) + CODE[kind])
    plan = parts.sync.plan("words", folder)
    assert plan.is_good, plan.errors
    parts.sync.apply(plan)


def test_JX_31_what_a_push_changes_is_told_in_a_line(parts: Parts, tmp_path: Path) -> None:
    watcher = Watcher(parts)
    watcher.serving.look()
    folder = tmp_path / "handlers"
    push(parts, folder, {"a": ("mapper", "none", "1"), "b": ("reducer", "none", "1"), "c": ("mapper", "none", "1")})
    watcher.serving.look()
    assert watcher.told == [], "the first handlers are no news"
    push(parts, folder, {"a": ("mapper", "none", "2"), "b": ("reducer", "none", "1"), "d": ("mapper", "none", "4")})
    watcher.serving.look()
    watcher.serving.look()
    (notice,) = watcher.told
    assert notice.text == "Applying handler updates: NEW=(1) UPDATED=(1) DELETED=(1)"
    assert (notice.level, notice.workflow) == ("info", "words")


def test_a_worker_serves_the_expressions_that_it_satisfies_also_former_ones(parts: Parts, tmp_path: Path) -> None:
    able, unable = Watcher(parts, "gpu=2", "linux"), Watcher(parts, "general")
    push(parts, tmp_path / "handlers", {"a": ("mapper", "linux and gpu >= 2", "1")})
    push(parts, tmp_path / "handlers", {"a": ("mapper", "gpu or tpu", "1")})
    for watcher in (able, unable):
        watcher.serving.look()
    served = set(able.topics.values())
    assert served == {"gpu", "linux", "gpu >= 2 and linux", "gpu or tpu"}
    assert set(unable.topics.values()) == {"general"}
