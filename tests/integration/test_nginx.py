"""A real nginx, with the site of `deploy/nginx`, in front of a front end on its socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from mr.http import app
from tests.servers import free_ports, program
from tests.unit.front_ends import succeeds, worker
from tests.unit.test_http_server import Server, serving

DEADLINE_S = 30.0
SITE = Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "mr.conf"
MAIN = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    types {{ text/css css; text/javascript js; }}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


class Nginx:
    """nginx on a port, and the front end behind it."""

    def __init__(self, behind: Server, folder: Path, port: int) -> None:
        self.behind, self.folder, self.port = behind, folder, port

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            names = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request(method, path, body, {"Content-Type": "application/json", **names})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    path = program("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    (port,) = free_ports(1)
    site = SITE.read_text()
    for there, here in (
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("/run/mr/web.sock", f"{folder}/web.sock"),
        ("/srv/mr", f"{folder}/srv"),
    ):
        assert there in site
        site = site.replace(there, here)
    (folder / "site.conf").write_text(site)
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))
    (folder / "srv" / "s").mkdir(parents=True)
    (folder / "srv" / "s" / "mr.css").write_text("/* linked */")
    with serving(folder, f"unix:{folder}/web.sock") as behind:
        process = subprocess.Popen([path, "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"])
        try:
            made = Nginx(behind, folder, port)
            await_answer(made, process)
            yield made
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def await_answer(nginx: Nginx, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        assert process.poll() is None, (nginx.folder / "error.log").read_text()
        try:
            assert nginx.ask("GET", "/")[1] == b"Map me. Reduce me."
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_JX_111_a_job_is_posted_through_nginx_to_a_socket(nginx: Nginx) -> None:
    with worker(nginx.behind.parts, succeeds(("a", 1))):
        answer, body = nginx.ask("POST", "/job/w/j", b'{"arguments": {"x": 1}}')
    assert (answer.status, json.loads(body)) == (200, {"result": {"pairs": [["a", 1]]}})
    assert answer.getheader("Server", "").startswith("nginx")
    assert len(answer.getheader("X-MR-REQUEST-ID", "")) == 40


def test_JX_48_the_address_of_the_client_is_what_nginx_saw_and_not_what_the_client_says(nginx: Nginx) -> None:
    answer, _ = nginx.ask("POST", "/job/w/j?blocking=0", b'{"arguments": {}}', X_Forwarded_For="6.6.6.6")
    record = nginx.behind.parts.results.request("w", answer.getheader("X-MR-REQUEST-ID", ""))
    assert record.context == {"requester_ip": "127.0.0.1"}


def test_files_below_s_are_nginx_s_own_where_they_are_linked_and_mr_s_elsewhere(nginx: Nginx) -> None:
    assert nginx.ask("GET", "/s/mr.css")[1] == b"/* linked */"
    answer, body = nginx.ask("GET", "/s/job.js")
    assert answer.status == 200
    assert body == (Path(app.__file__).parent / "static" / "job.js").read_bytes()
    assert nginx.ask("GET", "/s/nope.css")[0].status == 404
    answer, body = nginx.ask("GET", "/ui/job/")
    assert b"/ui/job/w/j" in body
    assert answer.getheader("Content-Security-Policy")


def test_a_big_body_reaches_mr_and_is_refused_by_mr_if_it_is_too_big(nginx: Nginx) -> None:
    def post(size: int) -> tuple[int, Any]:
        values = {str(number): "x" * 50_000 for number in range(size // 50_000)}
        answer, body = nginx.ask("POST", "/job/w/j?blocking=0", json.dumps({"arguments": values}).encode())
        return answer.status, json.loads(body)

    assert post(900_000) == (200, {"result": None})
    status, answer = post(5_000_000)
    assert status == 413
    assert "limit" in answer["error"]["message"]


def test_a_slow_body_is_collected_before_mr_hears_of_it(nginx: Nginx) -> None:
    body = b'{"arguments": {"slow": 1}}'
    head = (
        f"POST /job/w/j?blocking=0 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    before = nginx.behind.count()
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=DEADLINE_S) as client:
        client.sendall(head.encode() + b"\r\nConnection: close\r\n\r\n" + body[:5])
        assert nginx.ask("GET", "/livez")[0].status == 200
        assert nginx.behind.count() == before
        for place in range(5, len(body)):
            client.sendall(body[place : place + 1])
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert nginx.behind.count() == before + 1


def test_a_client_that_waits_gets_its_result_when_it_is_there(nginx: Nginx) -> None:
    before = set(nginx.behind.ids())
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=DEADLINE_S) as client:
        body = b'{"arguments": {}}'
        head = f"POST /job/w/j HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with worker(nginx.behind.parts, lambda *_: None):  # nobody ends it
            client.sendall(head.encode() + body)
            deadline = time.monotonic() + DEADLINE_S
            while not (new := set(nginx.behind.ids()) - before):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        nginx.behind.finish(new.pop(), ("late", 1))
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.partition(b"\r\n\r\n")[2] == b'{"result": {"pairs": [["late",1]]}}'
