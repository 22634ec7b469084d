"""Messages: what is on the queue, and what is believed of it."""

from __future__ import annotations

import json

import pytest

from mr.errors import CorruptEntry
from mr.model.message import Level, Message, seal, unseal

MESSAGE = Message(w="w", r="0" * 40, epoch=1, set="abc", kind="map", p="0", from_=3, to=5, levels=[Level(9, 4, "s")])
KEY = b"k" * 32


def test_JX_59_a_message_is_plain_json_with_the_version_of_its_format() -> None:
    found = json.loads(seal(MESSAGE, KEY))
    assert (found["v"], found["w"], found["r"]) == (1, "w", "0" * 40)
    assert (found["kind"], found["p"], found["from"], found["to"]) == ("map", "0", 3, 5)


@pytest.mark.parametrize("body", [b"\x80\x04K\x01.", b"(lp0\n.", b"", b"[]", b"{}", b'{"v": 1}', b"\xff"])
def test_JX_59_what_is_no_json_of_ours_is_refused_and_nothing_of_it_runs(body: bytes) -> None:
    with pytest.raises(CorruptEntry):
        unseal(body, KEY)


def test_another_format_is_refused_by_its_number() -> None:
    body = seal(MESSAGE, KEY).replace(b'"v":1', b'"v":2')
    with pytest.raises(CorruptEntry, match="format 2"):
        unseal(body, KEY)


def test_a_message_that_others_sealed_can_cause_work_and_choose_nothing() -> None:
    found = unseal(seal(MESSAGE, b"x" * 32), KEY)
    assert (found.w, found.r, found.p, found.again) == ("w", "0" * 40, "0", True)
    assert (found.set, found.levels, found.has_args) == ("", [], False)
    assert unseal(seal(MESSAGE, KEY), KEY).levels == [Level(9, 4, "s")]
