"""Cgroups: the level that can be reached, and what a leaf does; on the kernel where it may be, else on files like its.

Where the kernel gives no memory controller, only what is written can be seen, not what it does.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mr.services.isolation import LEAF_PREFIX, TASKS_MAX, Cgroup, Leaf, reached

MB = 1024 * 1024
LIMITS = ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cgroup.procs", "cgroup.kill")


def files(path: Path, **contents: str) -> Path:
    """A folder that looks like a cgroup."""
    path.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A cgroup that is no root, with this process alone in it, and room for it below."""
    files(tmp_path / f"mr-worker-{os.getpid()}", cgroup__procs="")
    return files(
        tmp_path, cgroup__controllers="cpu memory pids\n", cgroup__procs=f"{os.getpid()}\n",
        cgroup__subtree_control="", cgroup__type="domain\n",
    )  # fmt: skip


def test_without_a_cgroup_there_is_the_limit_of_each_process() -> None:
    level = Cgroup(None).prepare()
    assert (level.memory, level.processes) == ("rlimit", "environment")
    assert "version 2" in level.reason
    assert Cgroup(None).leaf("one", MB) is None


def test_what_may_not_be_written_is_not_used(tmp_path: Path) -> None:
    cgroup = Cgroup(tmp_path / "missing")
    level = cgroup.prepare()
    assert (level.memory, level.processes) == ("rlimit", "environment")
    assert str(tmp_path) in level.reason
    assert cgroup.leaf("one", MB) is None


def test_a_worker_that_is_alone_moves_into_a_leaf_and_gets_the_controllers(alone: Path) -> None:
    cgroup = Cgroup(alone)
    assert cgroup.look().memory == "cgroup"
    assert (alone / "cgroup.subtree_control").read_text() == ""
    assert cgroup.prepare().memory == "cgroup"
    assert (alone / f"mr-worker-{os.getpid()}" / "cgroup.procs").read_text() == str(os.getpid())
    assert (alone / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_a_leaf_has_the_limits_of_its_executor(alone: Path) -> None:
    cgroup = Cgroup(alone)
    cgroup.prepare()
    files(alone / "one", **{name.replace(".", "__"): "" for name in LIMITS})
    leaf = cgroup.leaf("one", 300 * MB)
    assert leaf is not None
    leaf.enter(4711)
    assert {name: (leaf.path / name).read_text() for name in LIMITS[:5]} == {
        "memory.max": str(300 * MB), "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": str(TASKS_MAX),
        "cgroup.procs": "4711",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [("cgroup.procs", f"{os.getpid()}\n1\n", "other processes"), ("cgroup.controllers", "cpu pids\n", "memory")],
    ids=["processes", "controllers"],  # a process id in a name would differ between the runners of tests
)
def test_without_controllers_leaves_are_there_to_end_what_is_in_them(
    alone: Path, name: str, text: str, said: str
) -> None:
    (alone / name).write_text(text)
    cgroup = Cgroup(alone)
    level = cgroup.prepare()
    assert (level.memory, level.processes) == ("rlimit", "cgroup")
    assert said in level.reason
    files(alone / "one", memory__max="")
    leaf = cgroup.leaf("one", MB)
    assert leaf is not None
    assert (leaf.path / "memory.max").read_text() == ""


@pytest.mark.parametrize(("events", "expected"), [("low 0\noom_kill 0\n", False), ("oom 3\noom_kill 2\n", True)])
def test_a_leaf_tells_whether_memory_was_the_reason(tmp_path: Path, events: str, expected: bool) -> None:
    assert Leaf(files(tmp_path, memory__events=events)).ran_out_of_memory is expected


def test_the_level_can_be_asked_for_and_asking_changes_nothing() -> None:
    before = Path("/proc/self/cgroup").read_text()
    first, second = reached(), reached()
    assert first == second
    assert (first.memory == "cgroup") <= (first.reason == "")
    assert Path("/proc/self/cgroup").read_text() == before


def test_empty_leaves_of_dead_workers_are_removed_and_no_others(alone: Path) -> None:
    (alone / f"{LEAF_PREFIX}empty").mkdir()
    files(alone / f"{LEAF_PREFIX}used", cgroup__procs="1")
    (alone / "somebody").mkdir()
    Cgroup(alone).look()
    assert (alone / f"{LEAF_PREFIX}empty").exists()
    Cgroup(alone).prepare()
    assert not (alone / f"{LEAF_PREFIX}empty").exists()
    assert (alone / f"{LEAF_PREFIX}used").exists()
    assert (alone / "somebody").exists()


@pytest.fixture
def real() -> Iterator[Leaf]:
    """A leaf of the kernel."""
    cgroup = Cgroup.own()
    if cgroup.prepare().processes != "cgroup":
        pytest.skip("this process may make no cgroup of version 2 here")
    leaf = cgroup.leaf(f"mr-test-{os.getpid()}", None)
    assert leaf is not None
    yield leaf
    leaf.remove()


@pytest.mark.kills
def test_removing_a_leaf_ends_whatever_was_started_in_it(real: Leaf) -> None:
    script = "read line; (setsid env -i sleep 1000 &); setsid sleep 1000 & wait"
    with subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        real.enter(process.pid)
        process.stdin.write(b"go\n")
        process.stdin.flush()
        while len(real._processes()) < 3:
            assert process.poll() is None
        real.remove()
        assert not real.path.exists()
        assert process.wait() == -9
