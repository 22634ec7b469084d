"""Every error has a status code, and what goes into a header is safe there."""

from __future__ import annotations

import inspect

import pytest

from mr import errors
from mr.errors import BlobStoreUnavailable, MrError, StoreUnavailable
from mr.http.errors import header_safe, status_of


def test_every_error_has_a_status_code() -> None:
    kinds = {name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MrError)}
    expected = {
        404: {"InvalidName", "UnknownWorkflow", "UnknownJob", "RequestNotFound", "NotFound"},
        400: {"InvalidDocument", "InvalidArguments", "ValueRefused"},
        503: {"StoreUnavailable", "StoreFull", "BrokerUnavailable", "PictureUnavailable", "VersionConflict"},
    }
    found = {
        name: status_of(kind.__new__(kind)) for name, kind in kinds.items() if not issubclass(kind, StoreUnavailable)
    }
    for status, names in expected.items():
        assert {name for name, code in found.items() if code == status} == names - {"StoreUnavailable"}
    assert set(found.values()) <= {400, 404, 409, 500, 503}


def test_an_unknown_outcome_is_504() -> None:
    assert status_of(StoreUnavailable("x")) == status_of(BlobStoreUnavailable("x")) == 503
    assert status_of(StoreUnavailable("x", unknown=True)) == 504


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain text", "plain text"),
        ("two\r\nlines\tand\x0bmore", "two lines and more"),
        ("\x00\x1b[31mred\x7f", "?" + "?[31mred?"),
        ("é", r"\xe9"),
        ("жук", r"\u0436\u0443\u043a"),
        ("\ud800", r"\ud800"),
        ("", ""),
        ("x" * 5000, "x" * 1000),
        ("ж" * 5000, (r"\u0436" * 5000)[:1000]),
    ],
)
def test_a_header_is_one_line_of_printable_ascii(text: str, safe: str) -> None:
    assert header_safe(text) == safe
