"""The files of `deploy/` fit the product: names of settings, commands, places, times."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from mr.cli.main import PLACES
from mr.http import jobs
from mr.http.gunicorn_config import graceful_timeout, keepalive
from mr.settings import Settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted(DEPLOY.glob("systemd/*.service"))


def variables(text: str) -> dict[str, str]:
    """The settings that a file of lines NAME=value gives."""
    return dict(re.findall(r"^(?:Environment=)?(MR_\w+)=(.*)$", text, re.MULTILINE))


def read(environ: dict[str, str]) -> Settings:
    settings = Settings.from_env({"HOME": "/root", **environ})
    assert not settings.notices
    return settings


@pytest.mark.parametrize("machine", ["a", "b", "c"])
def test_the_three_machines_name_the_same_servers_their_own_first(machine: str) -> None:
    settings = read(variables((DEPLOY / "cluster" / f"{machine}.env").read_text()))
    hosts = ["a.example", "b.example", "c.example"]
    endpoints = [endpoint.host for endpoint in settings.store.url.endpoints]
    nodes = [node.tcp.host for node in settings.broker.url.nodes]
    assert (sorted(endpoints), sorted(nodes)) == (hosts, hosts)
    assert endpoints[0] == nodes[0] == f"{machine}.example"
    assert len(settings.broker.url.lookupds) == 3


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_that_exists_with_settings_that_exist(unit: Path) -> None:
    text = unit.read_text()
    (command,) = re.findall(r"^ExecStart=/opt/mr/bin/mr (\w+)$", text, re.MULTILINE)
    assert command in PLACES
    settings = read(variables(text))
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)s$", text, re.MULTILINE)
    assert float(stop_s) > (graceful_timeout if command == "web" else settings.worker.drain_s)
    assert {"Type=notify", "WatchdogSec=30s", "NoNewPrivileges=yes"} <= set(text.splitlines())


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_a_unit(unit: Path, tmp_path: Path) -> None:
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        pytest.skip("systemd-analyze is not installed")
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace("/opt/mr/bin/mr", sys.executable))
    done = subprocess.run([verifier, "verify", "--man=no", str(here)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])


def test_the_site_of_nginx_has_times_and_sizes_beyond_those_of_mr() -> None:
    site = (DEPLOY / "nginx" / "mr.conf").read_text()

    def number(pattern: str) -> float:
        (found,) = re.findall(pattern, site, re.MULTILINE)
        return float(found)

    settings = read({})
    assert number(r"client_max_body_size (\d+)m;") > settings.http.body_max_mb
    assert number(r"proxy_read_timeout (\d+)s;") > settings.http.wait_max_s
    assert number(r"client_body_timeout (\d+)s;") > jobs.BODY_S
    assert number(r"^    keepalive_timeout (\d+)s;") < keepalive


def test_the_compose_file_runs_commands_with_settings_that_exist() -> None:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = found["services"]
    for name in ("web", "worker"):
        assert services[name]["command"] == [name]
        settings = read(services[name]["environment"])
        assert settings.store.url.endpoints[0].host in services
        assert settings.broker.url.nodes[0].tcp.host in services
    assert "/readyz" in " ".join(services["web"]["healthcheck"]["test"])
    image = (DEPLOY / "Containerfile").read_text()
    assert read(dict(re.findall(r"(MR_\w+)=(\S+)", image))).http.bind.endpoint is not None


def test_an_image_is_built_of_sources_alone_on_a_python_that_is_supported() -> None:
    image = (DEPLOY / "Containerfile").read_text()
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    for version in re.findall(r"^FROM python:(\S+)-slim", image, re.MULTILINE):
        assert f"Programming Language :: Python :: {version}" in project["classifiers"]
    assert re.search(r'^ENTRYPOINT \["mr"\]$', image, re.MULTILINE)
    assert "mr" in project["scripts"]
    assert {".git", ".venv", ".cache"} <= set((DEPLOY.parent / ".dockerignore").read_text().splitlines())
