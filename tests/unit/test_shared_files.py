"""`FS` and `ctx.fs` in a real executor, and how a URL becomes a file system."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import mr
from mr.adapters.file_systems.opening import check, open_file_system
from mr.adapters.file_systems.tahoe import TahoeFileSystem
from mr.addresses import FileSystemUrl
from mr.errors import ConfigError, PathRefused
from mr.ports.file_system import FileSystem
from mr.rules.paths import steps
from mr.settings import Settings
from mr.wiring import Parts
from mr.worker import frames
from mr.worker.executor import Start
from tests.unit.executors import RETURN, Bench, bench


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(file_system=FileSystemUrl(f"file://{tmp_path}/shared")) as one:
        yield one


async def test_JX_97_all_functions_are_in_the_scope(one: Bench) -> None:
    source = (
        "FS.mkdir('in/deep', recursive=True)\n"
        "with FS.open('in/a', 'w') as file: file.write('text')\n"
        "FS.cp('in/a', 'in/b'); FS.cpr('in', 'out'); FS.mv('out/b', 'out/c'); FS.rm('out/a'); FS.rmdir('out/deep')\n"
        "with FS.open('out/c') as file: text = file.read()\n"
        "looks = [FS.exists('out'), FS.isfile('out/c'), FS.isdir('out'), FS.get_filesize('out/c')]\n"
        "listed = [[name, stat.type, stat.size] for name, stat in FS.ls('in')]\n"
        + RETURN
        + "yield 'got', [text, looks, listed, FS.get_stat('out/c').name]\n"
    )
    [[_, [got]]] = (await one.map(source)).result()
    assert got == [
        "text",
        [True, True, True, 4],
        [["a", "file", 4], ["b", "file", 4], ["deep", "directory", 0]],
        "c",
    ]


async def test_JX_97_ctx_fs_is_the_same_also_for_reducers(one: Bench, tmp_path: Path) -> None:
    module = "def handle(arguments, ctx):\n    ctx.fs.mkdir('x')\n    yield 'same', ctx.fs is FS\n"
    assert (await one.map(module)).result() == [["same", [True]]]
    module = "def handle(results, ctx):\n    yield 'dirs', [name for name, _ in ctx.fs.ls()]\n"
    assert (await one.reduce(module, "rows", [])).result(5) == [["dirs", ["x"]]]
    assert (tmp_path / "shared" / "working" / "flow" / "x").is_dir()


async def test_JX_99_a_path_that_leads_out_fails_the_invocation(one: Bench) -> None:
    failure = (await one.map(f"FS.open('../other/x')\n{RETURN}")).failure()
    assert failure.type == "PathRefused"
    assert failure.message.startswith("Path must be relative and not higher than the current directory.")


async def test_JX_100_each_workflow_has_its_own_in_one_executor(one: Bench, tmp_path: Path) -> None:
    for workflow in ("first", "second", "first"):
        source = f"with FS.open('log', 'a') as file: file.write('{workflow} ')\n{RETURN}"
        await one.map(source, workflow=workflow)
    root = tmp_path / "shared" / "working"
    assert (root / "first" / "log").read_text() == "first first "
    assert (root / "second" / "log").read_text() == "second "


async def test_the_url_stands_in_neither_command_line_nor_environment() -> None:
    async with bench(file_system=FileSystemUrl("memory://hidden-secret")) as one:
        pid = one.process.pid
        for name in ("cmdline", "environ"):
            assert b"hidden-secret" not in Path(f"/proc/{pid}/{name}").read_bytes()
        failure = (await one.map(f"raise ValueError(repr(FS))\n{RETURN}")).failure()
        assert "SharedFiles(memory://hidden-secret, 'flow')" in failure.message


async def test_threads_of_a_driver_do_not_wear_an_executor_out(one: Bench) -> None:
    source = "import fsspec.asyn\nfsspec.asyn.get_loop()\n" + RETURN
    run = await one.map(source)
    assert run.order[-1] == frames.Finished(id=run.order[-1].id, next=1)
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n" + RETURN
    assert (await one.map(source)).order[-1].left == "threads"


def test_what_the_supervisor_says_on_the_command_line_has_no_place_for_a_url() -> None:
    assert not [name for name in Start.__struct_fields__ if "file_system" in name or "url" in name]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("", ()), (".", ()), ("a/", ("a",)), ("./a//b", ("a", "b")), ("a/../b", ("b",)), ("a/..", ()), (".x", (".x",))],
)
def test_JX_99_paths_are_normalised(path: str, expected: tuple[str, ...]) -> None:
    assert steps(path) == expected


@pytest.mark.parametrize("path", [b"a", None, 3, Path("a")])
def test_a_path_is_text(path: object) -> None:
    with pytest.raises(TypeError, match="a path is a str"):
        steps(path)  # type: ignore[arg-type]


def test_a_PathRefused_is_a_ValueError_for_handlers_that_know_nothing_of_mr() -> None:
    assert issubclass(PathRefused, ValueError)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("gopher://x", "a scheme that fsspec knows"),
        ("tahoe+http://host", "what its driver takes"),
        ("tahoe+http://host/URI:CHK:hidden", "what its driver takes"),
        ("class://nowhere.Factory", "nowhere.Factory cannot be used"),
        ("class://pathlib.Path", "pathlib.Path cannot be used"),
    ],
)
def test_a_url_without_a_driver_names_setting_and_reason_and_no_secret(url: str, expected: str) -> None:
    with pytest.raises(ConfigError, match="MR_FS_") as caught:
        open_file_system(FileSystemUrl(url), "w")
    assert expected in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_follows_the_question_mark_goes_to_the_driver() -> None:
    fs = open_file_system(FileSystemUrl("memory://?global_store=false&other=a+b%26/"), "w")
    backend = fs._backend
    assert (backend.global_store, backend.storage_options["other"]) == (False, "a+b&/")


@pytest.mark.parametrize(("missing", "url"), [("fsspec", "file:///x"), ("s3fs", "s3://hidden")])
def test_a_missing_package_is_named(missing: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else real(name))
    with pytest.raises(ConfigError, match=r"mr-jobs\[fs\]" if missing == "fsspec" else "Install s3fs"):
        check(FileSystemUrl(url))


def test_the_driver_is_announced_to_all_that_use_fsspec() -> None:
    project = tomllib.loads((Path(mr.__file__).parent.parent / "pyproject.toml").read_text())["project"]
    announced = project["entry-points"]["fsspec.specs"]
    assert sorted(announced) == sorted(TahoeFileSystem.protocol)
    for place in announced.values():
        module, _, name = place.partition(":")
        assert getattr(importlib.import_module(module), name) is TahoeFileSystem


def test_a_worker_does_not_start_without_a_driver(tmp_path: Path) -> None:
    parts = Parts(Settings.from_env({"MR_STORE": f"sqlite:///{tmp_path}/mr.db", "MR_FS_URL": "gopher://x"}))
    with pytest.raises(ConfigError, match=r"MR_FS_URL: expected a scheme .*, got: gopher://\*\*\*"):
        parts.check_file_system()
    with pytest.raises(ConfigError, match="MR_FS_URL"):
        Parts(Settings.from_env({"MR_STORE": f"sqlite:///{tmp_path}/mr.db"})).file_system("w")


async def test_JX_101_a_factory_of_the_site_gives_a_file_system_of_fsspec(tmp_path: Path) -> None:
    (tmp_path / "site_files.py").write_text(
        "from fsspec.implementations.dirfs import DirFileSystem\n"
        "from fsspec.implementations.local import LocalFileSystem\n"
        f"class Factory:\n    def get_instance(self): return DirFileSystem({str(tmp_path)!r}, LocalFileSystem())\n"
    )
    settings = Settings.from_env({"HOME": "/tmp", "MR_FS_FACTORY_FQ_CLASS": "site_files.Factory"})
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    async with bench(environ=environ, file_system=settings.files.shared) as one:
        run = await one.map(f"FS.mkdir('made')\n{RETURN}yield 'names', [name for name, _ in FS.ls()]\n")
        assert run.result() == [["names", [["made"]]]]
    assert (tmp_path / "working" / "flow" / "made").is_dir()


def test_the_page_names_every_function() -> None:
    page = (Path(mr.__file__).parent.parent / "docs" / "file_system.rst").read_text(encoding="utf-8")
    assert [name for name in FileSystem.__abstractmethods__ if not re.search(rf"\b{name}\b", page)] == []
