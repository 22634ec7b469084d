"""The promises of the file system, kept by an S3."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mr.adapters.file_systems.opening import open_file_system
from mr.addresses import FileSystemUrl
from tests.contract.file_system_contract import RemoteContract
from tests.servers_files import S3Server
from tests.unit.executors import RETURN, bench

pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server().start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def url(server: S3Server) -> FileSystemUrl:
    return FileSystemUrl(server.url())


class TestS3(RemoteContract):
    async def test_handlers_reach_it_and_its_driver_does_not_wear_their_executor_out(self, url: FileSystemUrl) -> None:
        async with bench(file_system=url, memory_bytes=768 * 2**20) as one:
            for _ in range(2):
                source = "with FS.open('a', 'w') as file: file.write('text')\n"
                source += "with FS.open('a') as file: text = file.read()\n"
                run = await one.map(f"{source}{RETURN}yield text, [name for name, _ in FS.ls()]\n")
                assert run.result() == [["text", [["a"]]]]
                assert run.order[-1].left == ""

    def test_a_bucket_that_is_missing_is_not_made(self, server: S3Server) -> None:
        url = FileSystemUrl(server.url().replace("//bucket", "//nobucket"))
        with pytest.raises(FileNotFoundError):
            open_file_system(url, "ours").exists("a")
        with pytest.raises(FileNotFoundError):
            open_file_system(url, "ours").reach()
        open_file_system(FileSystemUrl(server.url()), "ours").reach()

    def test_a_server_that_does_not_answer_is_an_error_of_the_system(self) -> None:
        once = 'config_kwargs={"retries":{"total_max_attempts":1}}'
        url = FileSystemUrl(f"s3://b/c?key=k&secret=s&endpoint_url=http://127.0.0.1:9&{once}")
        with pytest.raises(OSError, match=r"127\.0\.0\.1:9"):
            open_file_system(url, "ours").exists("a")
