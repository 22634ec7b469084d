"""What every file system promises, as tests. A file for a backend gives `fs`, fresh and empty, and `opens`."""

from __future__ import annotations

import stat
import uuid
from collections.abc import Callable

import pytest

from mr.adapters.file_systems.opening import open_file_system
from mr.addresses import FileSystemUrl
from mr.errors import PathRefused
from mr.ports.file_system import FileSystem

Opens = Callable[[str], FileSystem]
Use = Callable[[str], object]


def write(fs: FileSystem, path: str, text: str = "text") -> None:
    with fs.open(path, "w") as file:
        file.write(text)


def read(fs: FileSystem, path: str) -> str:
    with fs.open(path) as file:
        return str(file.read())


def names(fs: FileSystem, path: str = "") -> list[str]:
    return [name for name, _ in fs.ls(path)]


class FileSystemContract:
    """The promises of `FileSystem`."""

    def test_JX_98_the_root_is_there_and_empty_before_anything_is_written(self, fs: FileSystem) -> None:
        assert fs.isdir("")
        assert fs.exists("")
        assert not fs.isfile("")
        assert list(fs.ls("")) == []
        assert list(fs.ls()) == []
        assert fs.get_stat("").type == "directory"

    def test_JX_97_what_is_written_is_read_and_replaced(self, fs: FileSystem) -> None:
        write(fs, "a.txt", "first, ü\n")
        assert read(fs, "a.txt") == "first, ü\n"
        write(fs, "a.txt", "2")
        assert read(fs, "a.txt") == "2"
        with fs.open("b", "wb") as file:
            file.write(b"\0\xff\n")
        with fs.open("b", "rb") as file:
            assert file.read() == b"\0\xff\n"
        assert names(fs) == ["a.txt", "b"]

    def test_JX_97_what_is_appended_comes_behind_and_an_exclusive_file_is_new(self, fs: FileSystem) -> None:
        with fs.open("log", "a") as file:
            file.write("one\n")
        with fs.open("log", "a") as file:
            file.write("two\n")
        assert read(fs, "log") == "one\ntwo\n"
        with fs.open("new", "x") as file:
            file.write("mine")
        with pytest.raises(FileExistsError):
            fs.open("new", "x")
        assert read(fs, "new") == "mine"

    def test_JX_97_a_file_is_read_from_any_place(self, fs: FileSystem) -> None:
        data = bytes(range(256)) * 1000
        with fs.open("data", "wb") as file:
            for start in range(0, len(data), 50_000):
                file.write(data[start : start + 50_000])
        with fs.open("data", "rb") as file:
            assert file.seek(1000) == 1000
            assert file.read(10) == data[1000:1010]
            assert file.read() == data[1010:]
        write(fs, "lines", "a\nb\nc")
        with fs.open("lines") as file:
            assert list(file) == ["a\n", "b\n", "c"]
        write(fs, "empty", "")
        assert read(fs, "empty") == ""
        assert fs.get_filesize("empty") == 0

    def test_JX_101_a_file_is_closed_also_when_its_block_raises(self, fs: FileSystem) -> None:
        def broken() -> None:
            with fs.open("a", "w") as file:
                file.write("half")
                raise KeyError

        with pytest.raises(KeyError):
            broken()
        assert read(fs, "a") == "half"

    def test_JX_97_directories_are_made_one_by_one_or_with_their_parents(self, fs: FileSystem) -> None:
        fs.mkdir("a")
        assert fs.isdir("a")
        assert names(fs, "a") == []
        with pytest.raises(FileExistsError):
            fs.mkdir("a")
        with pytest.raises(FileExistsError):
            fs.mkdir("")
        with pytest.raises(FileNotFoundError):
            fs.mkdir("b/c")
        fs.mkdir("b/c/d", recursive=True)
        fs.mkdir("b/c/d", recursive=True)
        assert names(fs) == ["a", "b"]
        assert names(fs, "b/c") == ["d"]
        write(fs, "a/file")
        with pytest.raises(NotADirectoryError):
            fs.mkdir("a/file/x", recursive=True)

    def test_JX_97_a_listing_has_name_and_stat_of_each_entry(self, fs: FileSystem) -> None:
        fs.mkdir("folder")
        write(fs, "ten", "0123456789")
        (first, folder), (second, file) = fs.ls("")
        assert (first, folder.name, folder.type, folder.size) == ("folder", "folder", "directory", 0)
        assert stat.S_ISDIR(folder.st_mode)
        assert (second, file.name, file.type, file.size) == ("ten", "ten", "file", 10)
        assert stat.S_ISREG(file.st_mode)
        assert file._fields == ("ctime", "name", "size", "st_mode", "type", "uri")
        assert file.uri
        one = fs.get_stat("ten")
        assert (one.name, one.size, one.type, one.uri) == ("ten", 10, "file", file.uri)
        assert one.ctime is None or one.ctime > 1_700_000_000
        assert fs.get_filesize("ten") == 10
        with pytest.raises(NotADirectoryError):
            fs.ls("ten")
        with pytest.raises(FileNotFoundError):
            fs.ls("none")

    def test_JX_97_what_is_not_there_is_missed(self, fs: FileSystem) -> None:
        uses: tuple[Use, ...] = (fs.get_stat, fs.get_filesize, fs.rm, fs.rmdir, fs.open, fs.ls)
        for use in uses:
            with pytest.raises(FileNotFoundError):
                use("none")
            with pytest.raises(FileNotFoundError):
                use("no/ne")
        for two in (fs.cp, fs.cpr, fs.mv):
            with pytest.raises(FileNotFoundError):
                two("none", "to")
        assert [use(path) for use in (fs.exists, fs.isfile, fs.isdir) for path in ("none", "no/ne")] == [False] * 6
        with pytest.raises(FileNotFoundError):
            fs.open("no/file", "w")

    def test_JX_97_files_and_directories_are_not_mistaken_for_each_other(self, fs: FileSystem) -> None:
        fs.mkdir("folder")
        write(fs, "file")
        uses: list[Use] = [fs.rm, fs.get_filesize, fs.open]
        for use in [*uses, lambda path: fs.open(path, "w"), lambda path: fs.cp("file", path)]:
            with pytest.raises(IsADirectoryError):
                use("folder")
        with pytest.raises(NotADirectoryError):
            fs.rmdir("file")
        with pytest.raises(NotADirectoryError):
            fs.cpr("file", "other")
        with pytest.raises((NotADirectoryError, FileNotFoundError)):
            fs.open("file/below", "w")
        assert not fs.exists("file/below")
        assert (fs.isfile("file"), fs.isdir("file"), fs.isfile("folder"), fs.isdir("folder")) == (
            True,
            False,
            False,
            True,
        )

    def test_JX_97_files_are_copied_moved_and_removed(self, fs: FileSystem) -> None:
        fs.mkdir("to")
        write(fs, "a", "aa")
        fs.cp("a", "to/b")
        write(fs, "a", "changed")
        assert read(fs, "to/b") == "aa"
        fs.cp("a", "to/b")
        fs.cp("a", "a")
        assert read(fs, "to/b") == "changed"
        fs.mv("a", "to/c")
        assert not fs.exists("a")
        write(fs, "d", "dd")
        fs.mv("d", "to/c")
        fs.mv("to/c", "to/c")
        assert names(fs, "to") == ["b", "c"]
        assert read(fs, "to/c") == "dd"
        fs.rm("to/b")
        fs.rm("to/c")
        assert names(fs, "to") == []
        assert fs.isdir("to")
        with pytest.raises(FileNotFoundError):
            fs.mv("to", "no/where")

    def test_JX_97_directories_are_copied_and_moved_with_all_that_is_in_them(self, fs: FileSystem) -> None:
        fs.mkdir("a/empty", recursive=True)
        write(fs, "a/x", "x")
        fs.cpr("a", "b")
        write(fs, "b/x", "of b")
        assert (names(fs, "b"), read(fs, "a/x"), names(fs, "b/empty")) == (["empty", "x"], "x", [])
        fs.mkdir("c")
        fs.mv("b", "c/d")
        assert not fs.exists("b")
        assert (names(fs, "c/d"), read(fs, "c/d/x")) == (["empty", "x"], "of b")
        for use in (fs.cpr, fs.mv):
            with pytest.raises(FileExistsError):
                use("a", "c")
            with pytest.raises(PathRefused, match="into itself"):
                use("a", "a/b")
        with pytest.raises(FileExistsError):
            fs.mv("a/x", "c")
        with pytest.raises(FileExistsError):
            fs.mv("c", "a/x")

    def test_JX_97_directories_are_removed_when_empty_or_by_force(self, fs: FileSystem) -> None:
        fs.mkdir("a/b", recursive=True)
        write(fs, "a/b/c")
        with pytest.raises(OSError, match="not empty"):
            fs.rmdir("a")
        fs.rmdir("a", force=True)
        assert names(fs) == []
        fs.mkdir("a")
        fs.rmdir("a")
        assert not fs.exists("a")

    @pytest.mark.parametrize("path", ["/", "/etc", "..", "../x", "a/../..", "a/../../x", "./..", "a\0b"])
    def test_JX_99_a_path_that_leads_out_is_refused_by_every_function(self, fs: FileSystem, path: str) -> None:
        uses: list[Use] = [fs.mkdir, fs.ls, fs.rm, fs.rmdir, fs.get_stat, fs.get_filesize, fs.exists, fs.isfile]
        uses += [fs.isdir, fs.open, lambda p: fs.open(p, "w"), lambda p: fs.cp(p, "to"), lambda p: fs.cp("from", p)]
        uses += [lambda p: fs.cpr(p, "to"), lambda p: fs.cpr("from", p)]
        for use in [*uses, lambda p: fs.mv(p, "to"), lambda p: fs.mv("from", p)]:
            with pytest.raises(PathRefused, match="must be relative and not higher than the current directory"):
                use(path)

    def test_JX_99_paths_are_normalised_and_hidden_names_are_names(self, fs: FileSystem) -> None:
        fs.mkdir("a/.b", recursive=True)
        write(fs, "./a//x/../.b/./.hidden", "h")
        assert read(fs, "a/.b/.hidden/") == "h"
        assert names(fs, "a/.b") == [".hidden"]
        assert names(fs, ".") == ["a"]
        assert names(fs, "a/..") == ["a"]

    def test_JX_97_names_are_taken_as_they_are(self, fs: FileSystem) -> None:
        odd = sorted(["ü é", "a*", "?x[1]", "%2e%2e", "a::b#+&c=d"])
        for name in odd:
            write(fs, name, name)
        assert names(fs) == odd
        for name in odd:
            assert read(fs, name) == name
        fs.rm("a*")
        fs.mkdir("?")
        fs.mv("?x[1]", "?/[y]#")
        fs.cp("?/[y]#", "a*")
        fs.rm("?/[y]#")
        fs.rmdir("?")
        assert names(fs) == sorted({*odd} - {"?x[1]"})

    def test_the_root_can_be_neither_removed_nor_moved(self, fs: FileSystem) -> None:
        fs.mkdir("a")
        uses: list[Use] = [lambda p: fs.rmdir(p, force=True), lambda p: fs.mv(p, "a/b"), lambda p: fs.mv("a", p)]
        for use in uses:
            with pytest.raises(PathRefused, match="root"):
                use(".")

    @pytest.mark.parametrize("mode", ["", "rw", "r+", "w+", "rbt", "q", "rr"])
    def test_a_mode_that_not_all_backends_have_is_refused(self, fs: FileSystem, mode: str) -> None:
        with pytest.raises(ValueError, match="modes"):
            fs.open("a", mode)

    def test_JX_100_workflows_have_a_directory_each(self, fs: FileSystem, opens: Opens) -> None:
        other = opens("other")
        write(fs, "same", "mine")
        write(other, "same", "theirs")
        assert (read(fs, "same"), read(other, "same")) == ("mine", "theirs")
        fs.mkdir("only")
        assert names(other) == ["same"]

    def test_what_another_handle_writes_is_seen_at_once(self, fs: FileSystem, opens: Opens) -> None:
        again = opens("ours")
        assert names(fs) == names(again) == []
        fs.mkdir("a")
        assert again.isdir("a")
        write(again, "a/x", "1")
        assert names(fs, "a") == ["x"]
        fs.rm("a/x")
        assert not again.exists("a/x")
        assert names(again, "a") == []


class RemoteContract(FileSystemContract):
    """The same on a server that all tests share, at `url`."""

    @pytest.fixture
    def opens(self, url: FileSystemUrl) -> Opens:
        mine = uuid.uuid4().hex  # a directory for all tests, and a few workflows for each
        return lambda workflow: open_file_system(url, f"{mine}.{workflow}")

    @pytest.fixture
    def fs(self, opens: Opens) -> FileSystem:
        return opens("ours")
