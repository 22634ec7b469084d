"""The checkup: all conditions of a deployment, one after the other, as they are found.

Servers and files speak for themselves, through their adapters; here is what only the whole can tell: settings, the
machine, the fleet, and queues that nobody serves.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence

import mr
from mr.errors import ConfigError, MrError
from mr.model.condition import Condition, Health, broken, doubtful, fine
from mr.model.language import Language
from mr.ports.blob_store import BlobStore
from mr.ports.broker import Publisher
from mr.ports.store import Store
from mr.services import machine
from mr.services.fleet import Fleet, Picture
from mr.settings import Settings


def of_settings(notices: Sequence[str]) -> list[Condition]:
    """What the settings gave reason to say; those that are wrong are told by `wrong_settings`."""
    found = [doubtful("settings", notice, "mend it, or unset it; see: mr config show") for notice in notices]
    return found or [fine("settings", "all known, and good together")]


def wrong_settings(error: ConfigError) -> list[Condition]:
    """The problems for which nothing can start."""
    return [broken("settings", problem, "mend it; see: mr config show") for problem in error.problems]


def checkup(
    settings: Settings,
    languages: Callable[[], Mapping[str, Language]],
    reach_files: Callable[[], None],
    blobs: Callable[[], BlobStore | None],
    store: Callable[[], Store],
    publisher: Callable[[], Publisher],
    fleet: Callable[[], Fleet],
) -> Iterator[Condition]:
    """All conditions. The parts are built here, one by one, so that one that cannot be is a condition, too."""
    yield from machine.conditions(settings)
    try:
        yield machine.programs(languages())
    except ConfigError as error:
        yield from (
            broken("languages", problem, "mend the file; see: docs/languages.rst") for problem in error.problems
        )
    if settings.files.shared is not None:
        yield from of_files(str(settings.files.shared), reach_files)
    if (blob_store := blobs()) is not None:
        yield of_blobs(blob_store)
    works, is_well = True, True
    for subject, part in (("store", store), ("broker", publisher)):
        try:
            for one in part().conditions():
                is_well = is_well and one.health is not Health.FAIL
                yield one
        except ConfigError as error:
            works = False
            yield from (broken(subject, problem, "see: mr config show") for problem in error.problems)
        except MrError as error:
            works = False
            yield _from(subject, error)
    if not works:
        return
    try:
        yield from of_fleet(fleet().look(), settings.worker.workflows)
    except MrError as error:
        if is_well:  # else that is why
            yield _from("fleet", error)


def of_files(url: str, reach: Callable[[], None]) -> Iterator[Condition]:
    """Whether the shared file system answers."""
    subject = "shared file system"
    try:
        reach()
        yield fine(subject, f"{url} answers")
    except ConfigError as error:
        yield from (broken(subject, problem, "see: mr config show") for problem in error.problems)
    except OSError as error:
        yield broken(subject, f"{url}: {error}", "mend MR_FS_URL, or start its server")


def of_blobs(blobs: BlobStore) -> Condition:
    """Whether a blob can be written, read and removed."""
    subject, name, data = "blob store", f"mr-doctor-{secrets.token_hex(8)}", secrets.token_bytes(1024)
    try:
        blobs.put(name, data)
        found = blobs.get(name)
        blobs.remove(name)
    except MrError as error:
        return _from(subject, error)
    if found != data:
        return broken(subject, f"{blobs.place} does not give back what it was given", "name another: MR_BLOB_URL")
    return fine(subject, f"{blobs.place} can be written and read")


def of_fleet(picture: Picture, workflows: Sequence[str] | None) -> Iterator[Condition]:
    """Workers, and who waits in vain. `workflows` are those that the settings name."""
    for name in workflows or ():
        if name not in picture.running:
            advice = f"mr workflow create {name} DESCRIPTION, or mend MR_WORKFLOW_NAMES"
            yield doubtful("workflows", f"MR_WORKFLOW_NAMES names {name}, which does not exist", advice)
    if picture.problem:
        yield broken("queues", picture.problem, "start the broker, or mend MR_BROKER")
    count, slots = len(picture.workers), sum(one.slots for one in picture.workers.values())
    if count:
        yield fine("workers", f"{count} with {slots} slots")
    else:
        yield doubtful("workers", "none is running, so nothing runs, and nothing is cleaned away", "mr worker")
    others = sorted({one.version for one in picture.workers.values()} - {mr.__version__})
    if others:
        yield doubtful(
            "worker versions", f"workers run version {', '.join(others)}, here is {mr.__version__}", "upgrade them all"
        )
    for one in picture.unserved:
        subject = f"queue {one.workflow}/{one.capability}"
        advice = one.help + one.near
        if one.messages:
            yield broken(subject, f"{one.messages:,} messages wait, and nobody offers {one.capability}", advice)
        else:
            yield doubtful(subject, f"handlers ask for {one.capability}, and nobody offers it", advice)
    for w, waits in picture.writes.items():
        if not waits.workers:
            advice = "start a worker with MR_RESULT_WRITER set to what they should leave by"
            yield broken(f"results of {w}", "some wait to be written, and no worker writes", advice)
    for topic, lies in picture.strays.items():
        advice = "create its workflow again, or delete the topic at the broker"
        yield doubtful(f"queue {topic}", f"{lies.total:,} messages lie there, and no workflow has it", advice)
    if not picture.unserved and not picture.strays and not picture.problem:
        yield fine("queues", f"all {len(picture.queues)} are served" if picture.queues else "none is needed yet")


def _from(subject: str, error: MrError) -> Condition:
    return broken(subject, error.message, error.hint or "see its log, and: mr config show")
