"""A writer that hangs: the wait for it ends, what it left behind does no harm, and there is a limit to that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mr.codec import Items
from mr.ports.result_writer import Origin, ResultWriter
from mr.services import patience
from mr.services.patience import PatientWriter

ORIGIN = Origin(workflow="w", job="j", request_id="0" * 40)
PIECES = [Items.of([b"[1,1]"]), Items.of([b"[2,2]"])]


class Hanging(ResultWriter):
    """Takes a piece, waits for the gate, then takes the rest."""

    name = "hanging"

    def __init__(self) -> None:
        self.gate, self.ended = threading.Event(), threading.Semaphore(0)
        self.taken = 0
        self.problem: BaseException | None = None

    def write(self, origin: Origin, pairs: Iterator[Items]) -> dict[str, Any] | None:
        try:
            for _ in pairs:
                self.taken += 1
                assert self.gate.wait(60)
        except BaseException as error:
            self.problem = error
            raise
        finally:
            self.ended.release()
        return {"taken": self.taken}


def test_what_the_writer_tells_and_raises_is_told_and_raised() -> None:
    writer = Hanging()
    writer.gate.set()
    assert PatientWriter(writer, 60).write(ORIGIN, iter(PIECES)) == {"taken": 2}
    assert PatientWriter(writer, 60).name == "hanging"

    def broken() -> Iterator[Items]:
        yield PIECES[0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        PatientWriter(writer, 60).write(ORIGIN, broken())


def test_a_write_that_hangs_is_left_with_an_error_that_names_the_setting() -> None:
    writer = Hanging()
    with pytest.raises(TimeoutError, match=r"MR_RESULT_WRITER_TIMEOUT_S=0\.05"):
        PatientWriter(writer, 0.05).write(ORIGIN, iter(PIECES))
    writer.gate.set()
    assert writer.ended.acquire(timeout=60)
    assert writer.taken == 1
    assert isinstance(writer.problem, TimeoutError)


def test_so_many_may_hang_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HUNG_MAX", 2)
    writer = Hanging()
    patient = PatientWriter(writer, 0.05)
    for _ in range(2):
        with pytest.raises(TimeoutError, match="took longer"):
            patient.write(ORIGIN, iter(PIECES))
    with pytest.raises(TimeoutError, match="2 earlier writes of this worker still hang"):
        patient.write(ORIGIN, iter(PIECES))
    assert writer.taken == 2
    writer.gate.set()
    for _ in range(2):
        assert writer.ended.acquire(timeout=60)
    for thread in threading.enumerate():
        if thread.name.startswith("write-"):
            thread.join(60)
    assert PatientWriter(writer, 60).write(ORIGIN, iter(PIECES)) is not None
    assert patient.write(ORIGIN, iter([])) is not None
