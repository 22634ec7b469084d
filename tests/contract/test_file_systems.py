"""The promises of the file system, kept by a local directory and in memory."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from mr.adapters.file_systems.opening import open_file_system
from mr.addresses import FileSystemUrl
from mr.errors import PathRefused
from mr.ports.file_system import FileSystem
from tests.contract.file_system_contract import FileSystemContract, Opens, Use, names, read, write


class TestLocal(FileSystemContract):
    @pytest.fixture
    def opens(self, tmp_path: Path) -> Opens:
        return lambda workflow: open_file_system(FileSystemUrl(f"file://{tmp_path}/made"), workflow)

    @pytest.fixture
    def fs(self, opens: Opens) -> FileSystem:
        return opens("ours")

    @pytest.fixture
    def root(self, fs: FileSystem, tmp_path: Path) -> Path:
        fs.exists("")
        return tmp_path / "made" / "working" / "ours"

    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        folder = tmp_path / "outside"
        folder.mkdir()
        (folder / "secret").write_text("secret")
        return folder

    def test_JX_98_the_root_lies_at_working_and_the_name_of_the_workflow(self, fs: FileSystem, root: Path) -> None:
        write(fs, "a", "here")
        assert (root / "a").read_text() == "here"

    def test_JX_99_a_link_that_leads_out_is_refused_by_every_function(
        self, fs: FileSystem, root: Path, outside: Path
    ) -> None:
        (root / "dir").symlink_to(outside)
        (root / "file").symlink_to(outside / "secret")
        (root / "up").symlink_to("../other")
        write(fs, "own")
        for path in ("dir", "dir/secret", "file", "up", "dir/new"):
            looks: list[Use] = [fs.get_stat, fs.get_filesize, fs.exists, fs.isfile, fs.isdir, fs.open, fs.ls]
            for use in looks:
                with pytest.raises(PathRefused, match="link leads out"):
                    use(path)
            for mode in ("w", "a", "x"):
                with pytest.raises(PathRefused):
                    fs.open(path, mode)
            with pytest.raises(PathRefused):
                fs.cp("own", path)
            with pytest.raises(PathRefused):
                fs.cp(path, "copy")
        for below in ("dir/new", "dir/secret"):
            changes: list[Use] = [fs.mkdir, fs.rm, fs.rmdir, lambda p: fs.mv(p, "x"), lambda p: fs.mv("own", p)]
            for use in changes:
                with pytest.raises(PathRefused):
                    use(below)
        assert sorted(os.listdir(outside)) == ["secret"]
        assert (outside / "secret").read_text() == "secret"

    def test_JX_99_links_are_listed_and_removed_as_what_they_are(
        self, fs: FileSystem, root: Path, outside: Path
    ) -> None:
        fs.mkdir("a")
        (root / "a" / "dir").symlink_to(outside)
        (root / "a" / "gone").symlink_to("nowhere")
        assert [(name, one.type, one.size) for name, one in fs.ls("a")] == [("dir", "link", 0), ("gone", "link", 0)]
        with pytest.raises(PathRefused, match="'dir' is a link"):
            fs.cpr("a", "b")
        fs.rm("a/gone")
        fs.mv("a/dir", "dir")
        fs.mv("dir", "a/dir")
        fs.rmdir("a", force=True)
        assert (outside / "secret").read_text() == "secret"
        assert not (root / "a").exists()

    def test_a_link_that_stays_inside_is_followed(self, fs: FileSystem, root: Path) -> None:
        fs.mkdir("a")
        write(fs, "a/x", "x")
        (root / "to").symlink_to("a")
        assert read(fs, "to/x") == "x"
        assert names(fs, "to") == ["x"]
        assert fs.get_stat("to").type == "directory"

    def test_JX_99_a_link_that_comes_after_the_look_is_not_followed(
        self, fs: FileSystem, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.open

        def swap(path: str, *more: object, **named: object) -> int:
            if path == str(root / "folder" / "secret"):
                os.rename(root / "folder", root / "was")
                (root / "folder").symlink_to(outside)
            return real(path, *more, **named)  # type: ignore[arg-type]

        fs.mkdir("folder")
        write(fs, "folder/secret", "ours")
        monkeypatch.setattr(os, "open", swap)
        with pytest.raises(PathRefused):
            fs.open("folder/secret", "w")
        assert (outside / "secret").read_text() == "secret"

    def test_of_two_that_make_a_directory_one_is_told(self, fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
        real = LocalFileSystem.mkdir

        def second(self: LocalFileSystem, path: str, **named: object) -> None:
            real(self, path, **named)
            real(self, path, **named)

        fs.exists("")
        monkeypatch.setattr(LocalFileSystem, "mkdir", second)
        with pytest.raises(FileExistsError):
            fs.mkdir("a")
        fs.mkdir("b/c", recursive=True)
        assert fs.isdir("b/c")


class TestMemory(FileSystemContract):
    @pytest.fixture
    def base(self) -> str:
        base = uuid.uuid4().hex
        MemoryFileSystem().mkdir(base)
        return base

    @pytest.fixture
    def opens(self, base: str) -> Opens:
        return lambda workflow: open_file_system(FileSystemUrl(f"memory://{base}"), workflow)

    def test_JX_99_a_name_that_means_another_directory_is_not_shown(self, fs: FileSystem, base: str) -> None:
        write(fs, "a")
        backend = MemoryFileSystem()
        for name in (".", ".."):
            backend.pipe_file(f"{base}/working/ours/{name}/outside", b"1")
        assert names(fs) == ["a"]

    def test_what_a_driver_raises_of_its_own_becomes_an_OSError(
        self, fs: FileSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(self: MemoryFileSystem, path: str, **_: object) -> None:
            raise ZeroDivisionError("its own")

        monkeypatch.setattr(MemoryFileSystem, "info", fails)
        with pytest.raises(OSError, match="failed: ZeroDivisionError: its own"):
            fs.exists("a")

    @pytest.fixture
    def fs(self, opens: Opens) -> FileSystem:
        return opens("ours")
