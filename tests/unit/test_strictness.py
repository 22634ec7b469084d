"""One reading of JSON everywhere (Z-10): what the front end refuses, the commands refuse, and the other way round."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mr import codec
from mr.cli.run import read_arguments
from mr.errors import InvalidDocument, MrError
from tests.unit import front_ends
from tests.unit.front_ends import Site

BAD = {
    "the same key twice": b'{"a": 1, "a": 2}',
    "the same key twice, once escaped": b'{"a": 1, "\\u0061": 2}',
    "the same key twice, further down": b'{"a": {"b": 1, "b": 1}}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": Infinity}',
    "minus infinity": b'{"a": -Infinity}',
    "a number beyond floats": b'{"a": 1e999}',
    "an integer of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a lone surrogate": b'{"a": "\\ud800"}',
    "a lone surrogate as a key": b'{"\\udfff": 1}',
    "101 levels": b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}",
    "100,000 levels": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a comma too many": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
    "a comment": b'{"a": 1} // one',
    "two documents": b'{"a": 1}{"b": 2}',
    "a leading zero": b'{"a": 01}',
    "hexadecimal": b'{"a": 0x1}',
    "a control character in a text": b'{"a": "\x01"}',
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "nothing": b"",
}
GOOD = {
    "a pair of surrogates": (b'{"a": "\\ud83d\\ude00"}', "😀"),
    "a big integer": (b'{"a": 123456789012345678901234567890}', 123456789012345678901234567890),
    "an integer as a float": (b'{"a": 1.0}', 1.0),
    "white space of all kinds": (b'\r\n\t {"a":\n[ ]}\n', []),
    "a slash that is escaped": (b'{"a": "\\/"}', "/"),
    "NUL, escaped": (b'{"a": "\\u0000"}', "\0"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(front_ends.parts(tmp_path_factory.mktemp("strict")))
    yield found
    found.close()


def file_of(tmp_path: Path, document: bytes) -> str:
    (tmp_path / "arguments.json").write_bytes(document)
    return str(tmp_path / "arguments.json")


@pytest.mark.parametrize("document", BAD.values(), ids=BAD)
def test_Z_10_a_bad_document_is_refused_by_front_end_and_commands_alike(
    site: Site, tmp_path: Path, document: bytes
) -> None:
    with pytest.raises(InvalidDocument):
        codec.loads(document)
    with pytest.raises((MrError, click.ClickException)):
        read_arguments(file_of(tmp_path, document))
    posted = site.client.post(
        "/job/w/j?blocking=0", data=b'{"arguments": ' + document + b"}", content_type="application/json"
    )
    assert posted.status_code == 400, posted.data
    assert posted.get_json()["error"]["message"]
    assert not site.requests()


@pytest.mark.parametrize(("document", "value"), GOOD.values(), ids=GOOD)
def test_Z_10_a_good_document_means_the_same_to_both(
    site: Site, tmp_path: Path, document: bytes, value: object
) -> None:
    assert read_arguments(file_of(tmp_path, document)) == {"a": value}
    before = set(site.requests())
    posted = site.client.post(
        "/job/w/j?blocking=0", data=b'{"arguments": ' + document + b"}", content_type="application/json"
    )
    assert posted.status_code == 200, posted.data
    (r,) = set(site.requests()) - before
    (arguments,) = site.parts.datasets.arguments("w", r, "-", 0, 1)
    assert codec.loads(arguments) == [["a", value]]
    site.parts.submission.cancel("w", r)
    site.parts.cleaner.remove("w", r)
