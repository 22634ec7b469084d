"""The table of broken behaviours fits the source as it is."""

from __future__ import annotations

import ast
import re

import pytest

from tests.mutants import EDITS, Edit
from tests.unit.scripts import ROOT


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: f"{edit.file}:{edit.old[:30]!r}")
def test_each_edit_applies_in_one_place_and_names_a_test_that_exists(edit: Edit) -> None:
    source = (ROOT / edit.file).read_text()
    assert source.count(edit.old) == 1
    ast.parse(source.replace(edit.old, edit.new))
    file, _, name = edit.test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_there_are_enough_of_them_over_many_numbers() -> None:
    assert len(EDITS) >= 40
    assert len({number for edit in EDITS for number in re.findall(r"JX_(\d+)", edit.test)}) >= 30
