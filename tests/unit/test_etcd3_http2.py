"""HTTP/2 of the etcd v3 adapter: bytes in any pieces, windows both ways, and every way in which a call may end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr.adapters.stores.etcd3 import hpack, http2
from mr.adapters.stores.etcd3.http2 import WINDOW_BYTES, Answer, Broken, Exchange, Unprocessed
from tests.fake_etcd import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    HELLO,
    OPENING,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WELL,
    WINDOW_UPDATE,
    fields,
    frame,
    frames,
    grpc_answer,
    grpc_body,
    grpc_refusal,
    number,
)

CALL = hpack.encode_call("/etcdserverpb.KV/Range", "127.0.0.1:2379", "")
ROOM = number(5, 2) + number(16_384)


def ready() -> Exchange:
    exchange = Exchange()
    exchange.feed(HELLO)
    exchange.take()
    return exchange


def asked(body: bytes = b"question") -> Exchange:
    exchange = ready()
    exchange.ask(CALL, body)
    exchange.take()
    return exchange


def answer_of(exchange: Exchange) -> Answer:
    assert exchange.answer is not None
    return exchange.answer


def sent_data(data: bytes) -> bytes:
    return b"".join(payload for kind, _, _, payload in frames(data) if kind == DATA)


# The beginning


def test_no_table_of_fields_is_asked_for_and_none_is_used():
    exchange = Exchange()
    data = exchange.take()
    assert data.startswith(PREFACE)
    (settings, room) = frames(data.removeprefix(PREFACE))
    assert settings[:3] == (SETTINGS, 0, 0)
    assert settings[3].startswith(number(1, 2) + number(0))
    assert room == (WINDOW_UPDATE, 0, 0, number(WINDOW_BYTES - 65_535))


def test_it_is_ready_when_the_server_has_spoken_and_has_taken_our_settings():
    exchange = Exchange()
    exchange.feed(frame(SETTINGS, payload=ROOM))
    early = exchange.ready
    exchange.feed(frame(SETTINGS, ACK))
    assert (early, exchange.ready) == (False, True)
    assert (SETTINGS, ACK, 0, b"") in frames(exchange.take().removeprefix(PREFACE))


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x", frame(PING, payload=b"x" * 8)])
def test_who_does_not_begin_with_settings_does_not_speak_http2(data: bytes):
    with pytest.raises(Broken, match="no HTTP/2"):
        Exchange().feed(data)


# Answers


@given(st.data())
def test_an_answer_is_read_whatever_pieces_it_comes_in(data: st.DataObject):
    message = data.draw(st.binary(max_size=100))
    noise = frame(WINDOW_UPDATE, 0, 0, number(10)) + frame(PING, payload=b"12345678") + frame(99, 3, 1, b"unknown")
    stream = noise + grpc_answer(message) + noise
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    exchange = asked()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True):
        exchange.feed(stream[start:end])
    answer = answer_of(exchange)
    assert answer.body == grpc_body(message)
    assert answer.fields == {
        b":status": b"200", b"content-type": b"application/grpc", b"grpc-status": b"0", b"grpc-message": b"",
    }  # fmt: skip
    assert exchange.reusable


def test_an_answer_may_be_nothing_but_trailers():
    exchange = asked()
    exchange.feed(grpc_refusal(5, "gone"))
    assert answer_of(exchange).fields[b"grpc-status"] == b"5"
    assert answer_of(exchange).body == b""


def test_a_block_of_fields_may_go_on_and_frames_may_be_padded():
    exchange = asked()
    exchange.feed(frame(HEADERS, PADDED | PRIORITY, 1, b"\3" + b"\0\0\0\0\x10" + OPENING[:5] + b"pad"))
    exchange.feed(frame(CONTINUATION, 0, 1, OPENING[5:9]) + frame(CONTINUATION, END_HEADERS, 1, OPENING[9:]))
    exchange.feed(frame(DATA, PADDED | END_STREAM, 1, b"\4body" + b"\0" * 4))
    assert answer_of(exchange).body == b"body"
    assert answer_of(exchange).fields[b"content-type"] == b"application/grpc"


def test_one_call_after_another_has_a_stream_of_its_own():
    exchange = ready()
    for stream in (1, 3, 5):
        exchange.ask(CALL, b"q%d" % stream)
        sent = frames(exchange.take())
        assert [(kind, number_) for kind, _, number_, _ in sent] == [(HEADERS, stream), (DATA, stream)]
        # What is still said about the last call concerns nobody.
        if stream > 1:
            late = stream - 2
            exchange.feed(frame(RST_STREAM, 0, late, number(0)) + frame(WINDOW_UPDATE, 0, late, number(5)))
        exchange.feed(grpc_answer(b"a%d" % stream, stream))
        assert answer_of(exchange).body == grpc_body(b"a%d" % stream)


def test_a_connection_whose_streams_are_used_up_is_not_used_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http2, "LAST_STREAM", 3)
    exchange = ready()
    for stream in (1, 3):
        assert exchange.reusable
        exchange.ask(CALL, b"q")
        exchange.feed(grpc_answer(b"", stream))
    assert not exchange.reusable


def test_pings_are_answered_with_the_next_bytes_and_cost_none_of_their_own():
    exchange = asked()
    exchange.feed(frame(PING, payload=b"12345678") + frame(PING, ACK, payload=b"87654321"))
    assert exchange.take() == b""
    exchange.feed(grpc_answer(b""))
    exchange.ask(CALL, b"next")
    assert frames(exchange.take())[-1] == (PING, ACK, 0, b"12345678")
    exchange.feed(grpc_answer(b"", 3))
    exchange.ask(CALL, b"and one more")
    assert all(kind != PING for kind, *_ in frames(exchange.take()))


# Windows


def test_a_big_call_goes_out_as_the_server_makes_room():
    body = bytes(range(256)) * 1000
    exchange = ready()
    exchange.ask(CALL, body)
    out = exchange.take()
    assert len(sent_data(out)) == 65_535
    exchange.feed(frame(WINDOW_UPDATE, 0, 0, number(1_000_000)))
    assert exchange.take() == b""  # there is room on the connection, none on the stream
    exchange.feed(frame(WINDOW_UPDATE, 0, 1, number(10)))
    out += exchange.take()
    assert len(sent_data(out)) == 65_545
    exchange.feed(frame(SETTINGS, payload=number(4, 2) + number(65_535 - 100)))
    exchange.feed(frame(WINDOW_UPDATE, 0, 1, number(150)))
    out += exchange.take()
    assert len(sent_data(out)) == 65_595  # new streams get 100 less, and so does this one
    exchange.feed(frame(WINDOW_UPDATE, 0, 1, number(1_000_000)))
    out += exchange.take()
    assert sent_data(out) == body
    data = [(flags, payload) for kind, flags, _, payload in frames(out) if kind == DATA]
    assert [flags for flags, _ in data] == [0] * (len(data) - 1) + [END_STREAM]
    assert max(len(payload) for _, payload in data) == 16_384
    exchange.feed(grpc_answer(b"", 1))
    assert exchange.reusable


def test_what_the_server_allows_new_streams_holds_for_the_next_call():
    exchange = asked()
    exchange.feed(frame(SETTINGS, payload=number(4, 2) + number(5)) + grpc_answer(b""))
    exchange.ask(CALL, b"more than five")
    assert sent_data(exchange.take()) == b"more "


def test_room_is_given_back_while_a_big_answer_comes_in():
    message = bytes(range(256)) * 20_000
    exchange = asked()
    room = {0: WINDOW_BYTES, 1: WINDOW_BYTES}
    waiting = frames(grpc_answer(message))
    for kind, flags, stream, payload in waiting:
        if kind == DATA:
            for of in room:
                room[of] -= len(payload)
                assert room[of] >= 0, f"no room on {of}: the server would wait for ever"
        exchange.feed(frame(kind, flags, stream, payload))
        for kind_, _, stream_, payload_ in frames(exchange.take()):
            assert kind_ == WINDOW_UPDATE
            room[stream_] += int.from_bytes(payload_, "big")
    assert answer_of(exchange).body == grpc_body(message)
    # A next one finds room as well: what the first used on the connection was given back.
    assert room[0] > WINDOW_BYTES // 2


# Ends


@pytest.mark.parametrize("last", [1, 7, (1 << 31) - 1])
def test_a_server_that_goes_away_still_answers_what_it_has(last: int):
    exchange = asked()
    first, *rest = [frame(*one) for one in frames(grpc_answer(b"done"))]
    exchange.feed(first + frame(GOAWAY, payload=number(last) + number(0) + b"graceful_stop") + b"".join(rest))
    assert answer_of(exchange).body == grpc_body(b"done")
    assert not exchange.reusable
    with pytest.raises(Unprocessed):
        exchange.ask(CALL, b"next")


def test_a_call_behind_the_last_one_that_a_leaving_server_names_was_not_looked_at():
    exchange = asked()
    exchange.feed(grpc_answer(b""))
    exchange.ask(CALL, b"second")
    with pytest.raises(Unprocessed, match="bye"):
        exchange.feed(frame(GOAWAY, payload=number(1) + number(0) + b"bye"))


def test_a_server_that_leaves_between_two_calls_is_asked_nothing():
    exchange = ready()
    exchange.feed(frame(GOAWAY, payload=number(0) + number(0)))
    assert not exchange.reusable


@pytest.mark.parametrize(("code", "kind"), [(REFUSED_STREAM, Unprocessed), (2, Broken), (8, Broken), (0, Broken)])
def test_a_call_that_the_server_ends_was_looked_at_unless_it_says_no(code: int, kind: type[Exception]):
    exchange = asked()
    with pytest.raises(Broken) as raised:
        exchange.feed(frame(HEADERS, END_HEADERS, 1, OPENING) + frame(RST_STREAM, 0, 1, number(code)))
    assert type(raised.value) is kind


def test_an_answer_may_come_before_the_whole_call_was_sent():
    exchange = ready()
    exchange.ask(CALL, b"x" * 100_000)
    exchange.take()
    exchange.feed(grpc_refusal(8, "too large") + frame(RST_STREAM, 0, 1, number(0)))
    assert exchange.answer is not None
    exchange.feed(frame(WINDOW_UPDATE, 0, 1, number(100_000)) + frame(WINDOW_UPDATE, 0, 0, number(100_000)))
    assert sent_data(exchange.take()) == b""
    assert not exchange.reusable


@pytest.mark.parametrize(
    "data",
    [
        frame(DATA, 0, 3, b"who asked?"),
        frame(HEADERS, END_HEADERS, 3, OPENING),
        frame(CONTINUATION, END_HEADERS, 1, OPENING),
        frame(HEADERS, 0, 1, OPENING) + frame(PING, payload=b"12345678"),
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff"),
        frame(HEADERS, 0, 1, b"\0" * 16_384) + frame(CONTINUATION, 0, 1, b"\0" * 16_384) * 4,
        frame(PUSH_PROMISE, END_HEADERS, 1, number(2) + OPENING),
        frame(DATA, PADDED, 1, b"\5abc"),
        frame(DATA, 0, 1, b"x" * 16_385),
        grpc_answer(b"") + grpc_answer(b""),
    ],
)
def test_a_server_that_breaks_the_rules_is_not_believed(data: bytes):
    with pytest.raises(Broken) as raised:
        asked().feed(data)
    assert type(raised.value) is Broken


# Fields


def test_fields_are_read_as_the_standard_writes_them():
    # RFC 7541, C.6.1: Huffman's code, names by number, fields that others would remember.
    block = bytes.fromhex(
        "4882640258 85aec3771a4b 6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3"
    )
    assert hpack.decode(block) == {
        b":status": b"302",
        b"cache-control": b"private",
        b"date": b"Mon, 21 Oct 2013 20:13:21 GMT",
        b"location": b"https://www.example.com",
    }
    # C.4.1, a request: what is named as a whole.
    assert hpack.decode(bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")) == {
        b":method": b"GET", b":scheme": b"http", b":path": b"/", b":authority": b"www.example.com",
    }  # fmt: skip


def test_a_field_of_any_bytes_and_length_is_read():
    value = bytes(range(256)) * 2
    plain = b"\0\1x\x7f" + bytes((len(value) - 127 & 0x7F | 0x80, len(value) - 127 >> 7)) + value
    assert hpack.decode(b"\x20" + plain) == {b"x": value}


def test_the_fields_of_a_call_say_what_grpc_wants():
    token = "t" * 300
    assert hpack.decode(hpack.encode_call("/a/b", "[::1]:2379", token)) == {
        b":method": b"POST", b":scheme": b"http", b":path": b"/a/b", b":authority": b"[::1]:2379",
        b"content-type": b"application/grpc", b"te": b"trailers", b"token": token.encode(),
    }  # fmt: skip


@pytest.mark.parametrize(
    "block",
    [
        b"\x21",
        b"\xbe",
        b"\x80",
        b"\0\1a",
        b"\0\5a",
        b"\0\1a\x81\x00",
        b"\0\1a\x84\xff\xff\xff\xff",
        b"\x0f\xff\xff\xff\xff\xff\xff",
    ],
)
def test_fields_that_make_no_sense_are_refused(block: bytes):
    with pytest.raises(ValueError, match=r"table|cut off|before its end|no name|too big"):
        hpack.decode(block)


@given(st.binary(max_size=40))
def test_no_bytes_do_more_than_make_no_sense(block: bytes):
    try:
        assert isinstance(hpack.decode(block), dict)
    except ValueError:
        pass


def test_nothing_is_read_twice():
    assert hpack.decode(WELL) is hpack.decode(WELL)
    assert hpack.decode(fields(status="200")) == {b":status": b"200"}
