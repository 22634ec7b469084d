"""Hierarchical keys of the store, built in one place.

No key starts with a slash; a prefix that is listed or counted ends in one, so `a` never matches `a1`. Parts
that people choose freely (session keys) are percent-encoded; names are checked by `model.names` before.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

ACTIVE = "active/"
COLLECTIONS = "collections/"
DATASETS = "queues/dataset/"
DUE = "due/"
FACTS = "entities/invocation/"
PINNED = "pinned/"
RECEIPTS = "published/"
REPLIES = "replies/"
REQUESTS = "entities/request/"
SESSIONS = "entity_trees/sessions/"
STOPPED = "stopped/"
WORKERS = "workers/"
WORKFLOWS = "entities/workflow/"
MESSAGE_KEY = "secrets/message_key"
POSTMAN = "leaders/postman"
SWEEPER = "leaders/sweeper"


def item(prefix: str, number: int) -> str:
    """An item of a queue; padded, so that a listing is in the order of the numbers."""
    return f"{prefix}{number:08d}"


def encoded(name: str) -> str:
    """A name of any text as one part of a key."""
    return quote(name, safe="")


def decoded(part: str) -> str:
    """The name that a part of a key stands for."""
    return unquote(part)


def workflow(w: str) -> str:
    return f"entities/workflow/{w}"


def jobs(w: str) -> str:
    return f"entities/job/{w}/"


def job(w: str, name: str) -> str:
    return f"entities/job/{w}/{name}"


def steps(w: str) -> str:
    return f"entities/step/{w}/"


def step(w: str, name: str) -> str:
    return f"entities/step/{w}/{name}"


def handlers(w: str) -> str:
    return f"entities/handler/{w}/"


def handler(w: str, name: str) -> str:
    return f"entities/handler/{w}/{name}"


def library(w: str, version: str = "") -> str:
    return f"library/{w}/{version}"


def definition_set(w: str, digest: str = "") -> str:
    return f"definition_sets/{w}/{digest}"


def requirements(w: str, word: str = "") -> str:
    """What the word for a capability in a topic means; without one the prefix of all."""
    return f"requirements/{w}/{word}"


def requests(w: str) -> str:
    return f"entities/request/{w}/"


def request(w: str, r: str) -> str:
    return f"entities/request/{w}/{r}"


def active(w: str, r: str) -> str:
    """The fence."""
    return f"active/{w}/{r}"


def of_active(key: str) -> tuple[str, str]:
    """Workflow and request of a fence."""
    _, w, r = key.split("/")
    return w, r


def stopped(w: str, r: str = "") -> str:
    """The marker that tells workers to kill what runs for a request that failed or was cancelled."""
    return f"stopped/{w}/{r}" if w else "stopped/"


def due(time: str, w: str, r: str) -> str:
    return f"due/{time}/{w}/{r}"


def pinned(w: str, r: str) -> str:
    """While it stands the request is not cleaned away."""
    return f"pinned/{w}/{r}"


def facts(w: str, r: str) -> str:
    """Everything below it is about invocations of the request."""
    return f"entities/invocation/{w}/{r}/"


def manifest(w: str, r: str, p: str) -> str:
    return f"entities/invocation/{w}/{r}/manifest/{p}"


def done(w: str, r: str, p: str, number: int | None = None) -> str:
    """The record of one slice, or without a number the prefix to count."""
    return f"entities/invocation/{w}/{r}/done/{p}/{'' if number is None else number}"


def parts(w: str, r: str, p: str, number: int) -> str:
    return f"entities/invocation/{w}/{r}/part/{p}/{number}/"


def part(w: str, r: str, p: str, number: int, child: int) -> str:
    return f"entities/invocation/{w}/{r}/part/{p}/{number}/{child}"


def reduce(w: str, r: str, p: str) -> str:
    return f"entities/invocation/{w}/{r}/reduce/{p}"


def attempts(w: str, r: str, p: str, budget: str) -> str:
    """The prefix to count for one budget: `exception`, `memory`, `lost_worker`."""
    return f"entities/invocation/{w}/{r}/attempt/{p}/{budget}."


def attempt(w: str, r: str, p: str, budget: str, execution: str) -> str:
    return f"entities/invocation/{w}/{r}/attempt/{p}/{budget}.{execution}"


def all_attempts(w: str, r: str) -> str:
    return f"entities/invocation/{w}/{r}/attempt/"


def datasets(w: str, r: str) -> str:
    return f"queues/dataset/{w}/{r}/"


def chunks(w: str, r: str, execution: str, kind: str) -> str:
    return f"queues/dataset/{w}/{r}/{execution}/{kind}/"


def chunk(w: str, r: str, execution: str, kind: str, number: int) -> str:
    return item(chunks(w, r, execution, kind), number)


def blobs(w: str, r: str) -> str:
    """What the names of all blobs of the request begin with, and a slash."""
    return f"{w}/{r}"


def blob(chunk: str) -> str:
    """The name of the blob that a chunk is, by the chunk's key."""
    return chunk.removeprefix(DATASETS)


def stored(w: str, r: str, note: str = "") -> str:
    """How much a worker wrote for the request; without a note the prefix of all. No execution is called `stored`."""
    return f"queues/dataset/{w}/{r}/stored/{note}"


def sessions(w: str, r: str, p: str = "", execution: str = "") -> str:
    """The session of one execution of mapper `p`; without both, of the whole request."""
    return f"entity_trees/sessions/{w}/{r}/{p}/{execution}/" if p else f"entity_trees/sessions/{w}/{r}/"


def session(w: str, r: str, p: str, execution: str, key: str) -> str:
    return f"entity_trees/sessions/{w}/{r}/{p}/{execution}/{encoded(key)}"


def collections(w: str, kind: str = "", name: str = "") -> str:
    """A collection that the handlers of a workflow share, all of a kind (`queues`, `trees`), or all of them."""
    return COLLECTIONS + "".join(f"{part}/" for part in (w, kind, name) if part)


def receipts(w: str, r: str) -> str:
    return f"published/{w}/{r}/"


def receipt(w: str, r: str, p: str, number: int | None = None) -> str:
    """Receipt of a slice of `p`, or without a number of the reduce of `p`."""
    return f"published/{w}/{r}/{p}/r" if number is None else f"published/{w}/{r}/{p}/{number}"


def receipt_of_write(w: str, r: str) -> str:
    """Receipt of the write of the result."""
    return f"published/{w}/{r}/write"


def replies(front_end: str, r: str = "") -> str:
    return f"replies/{front_end}/{r}"


def webhooks(destination: str) -> str:
    """Events that a destination has not taken yet, by the time when they are due."""
    return f"webhooks/{destination}/"


def webhook(destination: str, due: str, event: str) -> str:
    return f"webhooks/{destination}/{due}/{event}"


def worker(name: str) -> str:
    return f"workers/{name}"


def lock(key: str) -> str:
    """Held while several keys change together with this one, on a store without transactions."""
    return f"locks/{key}"
