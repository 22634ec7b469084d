"""Every numbered behaviour of JobX has a test that is named after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.scripts import script


def test_every_behaviour_of_jobx_has_a_test_of_its_number() -> None:
    found = script("behaviours").tests("JX")
    assert [number for number, names in found.items() if not names] == []


def test_a_number_without_a_test_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviours = script("behaviours")
    text = "".join(f"def test_JX_{number}_x(): ...\n" for number in range(1, 112) if number != 7)
    (tmp_path / "test_all.py").write_text(text)
    monkeypatch.setattr(behaviours, "TESTS", tmp_path)
    monkeypatch.setattr(behaviours.sys, "argv", ["behaviours"])
    assert behaviours.main() == 1
    assert capsys.readouterr().err == "behaviours: without a test: 7\n"
    (tmp_path / "test_more.py").write_text("async def test_JX_6_JX_7_y(): ...\n")
    assert behaviours.main() == 0
