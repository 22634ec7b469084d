"""Every listing of the documentation does what it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mr.adapters.processors.python import PythonProcessor
from tests.docs import settings_page
from tests.docs.listings import ROOT, Listing, Session, commands, differs, listings, pages

_OWN = ("MR_", "XDG_", "PYTEST_", "HOME")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_every_listing_of_a_page_does_what_it_shows(page: Path, tmp_path: Path) -> None:
    sessions = [one for one in listings(page) if one.is_session and not one.not_run]
    if not sessions:
        return
    (tmp_path / "tmp").mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
    environ |= {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "120"}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    environ["PYTHONPATH"] = str(ROOT)
    (tmp_path / "handlers").symlink_to(ROOT / "handlers")
    session = Session(tmp_path, environ)
    try:
        for listing in sessions:
            for command in commands(listing):
                code, printed = session.type(command.text)
                place = f"{listing.page}:{command.line}: $ {command.text}"
                assert code == 0, f"{place}\nended with {code}:\n{printed}"
                assert '{"error"' not in printed or '{"error"' in "".join(command.shown), f"{place}\n{printed}"
                if command.shown:
                    problem = differs(command.shown, printed)
                    assert not problem, f"{place}\n{problem}"
    finally:
        session.close()


def test_a_command_that_fails_or_shows_something_else_is_noticed(tmp_path: Path) -> None:
    session = Session(tmp_path, {"PATH": os.environ["PATH"]})
    try:
        assert session.type("echo one; false") == (1, "one\n")
        assert session.type("echo two") == (0, "two\n")
    finally:
        session.close()
    assert not differs(["two"], "two\n")
    assert differs(["one"], "two\n")


def test_the_page_of_settings_is_as_the_settings_are() -> None:
    assert settings_page.PAGE.read_text() == settings_page.page(), "write it: python -m tests.docs.settings_page"


def handlers() -> list[Listing]:
    """Listings that are handlers by themselves."""
    found = [one for page in pages() for one in listings(page) if one.language == "python"]
    return [one for one in found if "handler_type" in one.text]


@pytest.mark.parametrize("listing", handlers(), ids=lambda one: f"{one.page}:{one.line}")
def test_every_handler_that_is_shown_could_be_pushed(listing: Listing) -> None:
    assert PythonProcessor().check("shown", listing.text).source_code


def test_what_is_run_and_what_is_not_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = [one for page in pages() for one in listings(page)]
    sessions = [one for one in found if one.is_session]
    skipped = [one for one in sessions if one.not_run]
    with capsys.disabled():
        shown = len(found) - len(sessions)
        print(f"\nlistings: {len(found)}; {len(sessions) - len(skipped)} sessions run, {shown} are no sessions")
        for one in skipped:
            print(f"  not run: {one.page}:{one.line}: {one.not_run}")
    assert len(sessions) > len(skipped) > 0


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "docs", str(tmp_path / "html")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
