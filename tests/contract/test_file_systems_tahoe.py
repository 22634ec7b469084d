"""The promises of the file system, kept by a real grid of Tahoe-LAFS, and what only its driver has."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import fsspec
import pytest

from mr.adapters.file_systems.opening import open_file_system
from mr.adapters.file_systems.tahoe import MEMORY_BYTES, TahoeFileSystem
from mr.addresses import FileSystemUrl
from mr.ports.file_system import FileSystem
from mr.settings import Settings
from mr.wiring import Parts
from tests.contract.file_system_contract import Opens, RemoteContract, names, read, write
from tests.servers_files import TahoeGrid
from tests.unit.executors import RETURN, bench


@pytest.fixture(scope="module")
def grid() -> Iterator[TahoeGrid]:
    grid = TahoeGrid().start()
    yield grid
    grid.stop()


@pytest.fixture(scope="module")
def url(grid: TahoeGrid) -> FileSystemUrl:
    return FileSystemUrl(grid.url())


class TestTahoe(RemoteContract):
    def test_JX_101_the_uri_of_a_file_is_its_read_capability(self, fs: FileSystem) -> None:
        write(fs, "a", "x" * 100)
        assert fs.get_stat("a").uri.startswith("URI:CHK:")
        fs.cp("a", "b")
        assert fs.get_stat("b").uri == fs.get_stat("a").uri
        fs.mkdir("d")
        assert fs.get_stat("d").uri.startswith("URI:DIR2-RO:")

    def test_a_file_that_is_read_stays_as_it_was(self, fs: FileSystem) -> None:
        write(fs, "a", "before" * 100)
        with fs.open("a") as file:
            write(fs, "a", "after")
            assert file.read() == "before" * 100
        assert read(fs, "a") == "after"

    def test_a_file_bigger_than_memory_may_hold_goes_through_whole(self, fs: FileSystem) -> None:
        piece = bytes(range(256)) * 4096
        with fs.open("big", "wb") as file:
            for _ in range(MEMORY_BYTES // len(piece) + 1):
                file.write(piece)
        assert fs.get_filesize("big") == MEMORY_BYTES + len(piece)
        with fs.open("big", "rb") as file:
            assert file.read(len(piece)) == piece
            file.seek(-len(piece), 2)
            assert file.read() == piece

    async def test_JX_101_handlers_reach_it_by_the_variables_of_jobx(self, grid: TahoeGrid) -> None:
        environ = {
            "HOME": "/tmp",
            "MR_FS_FACTORY_FQ_CLASS": "mr.fs.backend.tahoe.TahoeFilesystemFactory",
            "MR_FS_TAHOE_DIR_URI": grid.directory(),
            "MR_FS_TAHOE_WEBAPI_URL_PREFIX": f"http://127.0.0.1:{grid.port}",
        }
        settings = Settings.from_env(environ)
        write(Parts(settings).file_system("flow"), "in", "text")
        async with bench(file_system=settings.files.shared) as one:
            run = await one.map(f"with FS.open('in') as file: text = file.read()\n{RETURN}yield 'got', text\n")
            assert run.result() == [["got", ["text"]]]
            assert run.order[-1].left == ""
            failure = (await one.map(f"FS.open('none')\n{RETURN}")).failure()
            assert failure.type == "FileNotFoundError"
            assert "URI:" not in failure.message + failure.traceback

    def test_other_programs_find_the_driver_by_its_url(self, grid: TahoeGrid, opens: Opens) -> None:
        url = grid.url()
        fs = open_file_system(FileSystemUrl(url), "ours")
        write(fs, "a", "text")
        with fsspec.open(f"{url}/working/ours/a") as file:
            assert file.read() == b"text"
        backend, path = fsspec.core.url_to_fs(url)
        assert isinstance(backend, TahoeFileSystem)
        assert path == ""
        assert backend.find("working") == ["working/ours/a"]
        assert backend.cat("working/ours/a") == b"text"
        backend.makedirs("x/y", exist_ok=True)
        backend.makedirs("x/y", exist_ok=True)
        assert backend.ls("x", detail=False) == ["x/y"]
        backend.rm("x", recursive=True)
        assert not backend.exists("x")

    def test_a_url_may_name_a_directory_below_its_capability(self, grid: TahoeGrid) -> None:
        url = grid.url()
        backend, _ = fsspec.core.url_to_fs(url)
        backend.mkdir("deep/down")
        fs = open_file_system(FileSystemUrl(f"{url}/deep/down"), "ours")
        write(fs, "a")
        assert names(fs) == ["a"]
        assert backend.exists("deep/down/working/ours/a")
        open_file_system(FileSystemUrl(f"{url}/deep"), "ours").reach()
        with pytest.raises(FileNotFoundError):
            open_file_system(FileSystemUrl(f"{url}/shallow"), "ours").reach()

    def test_a_wrong_capability_says_so_without_repeating_it(self, grid: TahoeGrid) -> None:
        fs = open_file_system(FileSystemUrl(f"tahoe+http://127.0.0.1:{grid.port}/URI:DIR2:hidden:hidden"), "ours")
        with pytest.raises(FileNotFoundError) as caught:
            fs.exists("a")
        assert "hidden" not in "".join(traceback.format_exception(caught.value))

    def test_a_node_that_does_not_answer_is_a_ConnectionError_without_the_secret(self) -> None:
        fs = open_file_system(FileSystemUrl("tahoe+http://127.0.0.1:9/URI:DIR2:hidden:hidden"), "ours")
        with pytest.raises(ConnectionError, match=r"Tahoe at http://127\.0\.0\.1:9 does not answer") as caught:
            fs.exists("a")
        assert "hidden" not in "".join(traceback.format_exception(caught.value))
