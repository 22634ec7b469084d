"""HPACK without its dynamic table: the fields of a call as bytes, and the bytes of an answer as fields.

Both sides of an HTTP/2 connection may remember fields in a table that every block changes. We announce a table of
size 0 and use none ourselves, so a block means the same wherever it stands. etcd answers with the same few blocks
again and again; each is decoded once.

The hard part is Huffman's code, in which etcd writes most of its strings. It is canonical: codes grow with their
length, and with the byte among those of one length, so the lengths are the whole table.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

# How many bits the code of each byte has, and the end of a string: one digit of base 36 each (5 to 30).
_LENGTHS = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6f565"
    "65666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmnqqkjmnmp"
    "qqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)
_END_OF_STRING = 256


def _codes() -> dict[tuple[int, int], int]:
    codes: dict[tuple[int, int], int] = {}
    code = last = 0
    for length, symbol in sorted((int(digit, 36), symbol) for symbol, digit in enumerate(_LENGTHS)):
        code <<= length - last
        codes[length, code] = symbol
        code, last = code + 1, length
    return codes


_SYMBOLS = _codes()

# Fields 1 to 61 of RFC 7541, appendix A.
_STATIC = [(b"", b"")] + [
    (name, value)
    for name, _, value in (
        field.partition(b"=")
        for field in (
            b":authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200"
            b"|:status=204|:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset"
            b"|accept-encoding=gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age|allow"
            b"|authorization|cache-control|content-disposition|content-encoding|content-language|content-length"
            b"|content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match"
            b"|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards"
            b"|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie"
            b"|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
        ).split(b"|")
    )
]
_AUTHORITY, _POST, _PATH, _HTTP, _CONTENT_TYPE = 1, 3, 4, 6, 31


@lru_cache(maxsize=64)
def encode_call(path: str, authority: str, token: str) -> bytes:
    """The fields that open a call of gRPC; the token is one that no proxy may put into a table."""
    block = bytes((0x80 | _POST, 0x80 | _HTTP))
    block += _literal(_PATH, b"", path.encode()) + _literal(_AUTHORITY, b"", authority.encode())
    block += _literal(_CONTENT_TYPE, b"", b"application/grpc") + _literal(0, b"te", b"trailers")
    if token:
        block += b"\x10" + _text(b"token") + _text(token.encode())
    return block


@lru_cache(maxsize=64)
def decode(block: bytes) -> Mapping[bytes, bytes]:
    """Fields of a block by name; of several with one name the last.

    Raises: ValueError if it is cut off, or refers to what is in no table.
    """
    fields: dict[bytes, bytes] = {}
    at = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80:
                number, at = _number(block, at, 7)
                name, value = _STATIC[number]
            elif first & 0xE0 == 0x20:
                size, at = _number(block, at, 5)
                if size:
                    raise ValueError(f"a table of {size} bytes is used; 0 was announced")
                continue
            else:
                # Whether the field is to be remembered makes no difference: nothing fits into a table of size 0.
                number, at = _number(block, at, 6 if first & 0x40 else 4)
                if number:
                    name = _STATIC[number][0]
                else:
                    name, at = _string(block, at)
                value, at = _string(block, at)
            if not name:
                raise ValueError("a field has no name")
            fields[name] = value
    except IndexError as error:
        raise ValueError("a block of fields is cut off, or names one that is in no table") from error
    return fields


def _literal(number: int, name: bytes, value: bytes) -> bytes:
    """A field that nobody is to remember; its name by number, or in full."""
    prefix = bytes((number,)) if number < 15 else bytes((15, number - 15))
    return prefix + (b"" if number else _text(name)) + _text(value)


def _text(data: bytes) -> bytes:
    if len(data) < 127:
        return bytes((len(data),)) + data
    prefix, rest = b"\x7f", len(data) - 127
    while rest >= 128:
        prefix += bytes((rest & 0x7F | 0x80,))
        rest >>= 7
    return prefix + bytes((rest,)) + data


def _number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """A number that begins in the low bits of a byte, and where it ends."""
    most = (1 << bits) - 1
    number = block[at] & most
    at += 1
    if number == most:
        for shift in range(0, 35, 7):
            byte = block[at]
            at += 1
            number += (byte & 0x7F) << shift
            if byte < 0x80:
                return number, at
        raise ValueError("a number is too big")
    return number, at


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    is_coded = block[at] & 0x80
    size, start = _number(block, at, 7)
    end = start + size
    if end > len(block):
        raise IndexError("a string is cut off")
    text = block[start:end]
    return (_decoded(text) if is_coded else text), end


def _decoded(text: bytes) -> bytes:
    found = bytearray()
    length = code = 0
    for byte in text:
        for shift in range(7, -1, -1):
            length, code = length + 1, code << 1 | byte >> shift & 1
            symbol = _SYMBOLS.get((length, code))
            if symbol is not None:
                if symbol == _END_OF_STRING:
                    raise ValueError("a coded string ends before its end")
                found.append(symbol)
                length = code = 0
    # What is left over fills the last byte up, with ones.
    if length > 7 or code != (1 << length) - 1:
        raise ValueError("a coded string is cut off")
    return bytes(found)
