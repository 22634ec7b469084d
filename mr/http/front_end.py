"""The front end of one process: what its routes work with."""

from __future__ import annotations

import socket

from mr.http.deliveries import Deliveries
from mr.http.grouped import Grouped
from mr.http.placing import Placing
from mr.http.replies import LOOK_EVERY_S, WaitingRoom
from mr.http.threads import ANSWER_S, SIZE, NativeThreads
from mr.model import ids
from mr.services.acceptance import Accepted, Posting
from mr.wiring import Parts

HEALTH_ANSWER_S = 5.0
READERS = 8
PICTURE_THREADS, PICTURE_LINE_MAX = 2, 20


class FrontEnd:
    """Parts, threads and waiting room of a process, made after it was forked. `id` is where its replies go.

    `health` has threads of its own, so that it can say that the others are stuck; and so has `drawing`, of which each
    call takes a core for as long as a picture takes, and `reading` of big results, which may lie where nobody answers.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        threads: int = SIZE,
        answer_s: float = ANSWER_S,
        look_every_s: float = LOOK_EVERY_S,
        probe_every_s: float = 5.0,
    ) -> None:
        self.parts = parts
        parts.share_commits(takes=False)
        self.settings = parts.settings.http
        self.id = ids.new_worker_id()
        self.host = socket.gethostname()
        self.threads = NativeThreads(threads, answer_s=answer_s)
        self.accepting: Grouped[Posting, Accepted] = Grouped(
            lambda postings: parts.submission.accept(postings), answer_s=answer_s
        )
        self.placing = Placing(parts.fleet, parts.clock, self.threads)
        self.health = NativeThreads(2, answer_s=HEALTH_ANSWER_S)
        self.reading = NativeThreads(READERS, answer_s=answer_s)
        self.drawing = NativeThreads(PICTURE_THREADS, line_max=PICTURE_LINE_MAX, answer_s=answer_s)
        self.deliveries = Deliveries(parts.cleaner, parts.retention, parts.clock, self.id)
        self.room = WaitingRoom(parts.store, self.id, self.deliveries.forget, look_every_s=look_every_s)
        self.probe_every_s = probe_every_s

    def drain(self) -> None:
        """Let all waiting clients go, with the ids of their requests. Called in the event loop."""
        self.room.drain()

    def close(self) -> None:
        """End the threads and let go of the parts. Twice is harmless."""
        self.threads.close()
        self.accepting.close()
        self.health.close()
        self.reading.close()
        self.drawing.close()
        self.room.close()
        self.deliveries.close()
        self.parts.close()
