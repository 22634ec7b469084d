"""Where good ends: judgements on clocks, space and versions that adapters and services share.

Times of one process are compared with those of others only to say when a finished request may go, so a clock that
is off by seconds does little; one that is off by more removes results before their time.
"""

from __future__ import annotations

import re
from email.utils import mktime_tz, parsedate_tz

from mr.model.condition import Condition, broken, doubtful, fine

SKEW_WARN_S = 2.0
SKEW_FAIL_S = 60.0
USED_WARN = 0.6
USED_FAIL = 0.8
FREE_WARN_BYTES = 1 << 30
FREE_FAIL_BYTES = 100 << 20

_NUMBERS = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")


def clock(subject: str, ahead_s: float) -> Condition:
    """How far the clock of a server is ahead of ours, known to about a second."""
    text = f"its clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} that of this machine"
    advice = "set both by NTP (chronyd, systemd-timesyncd)"
    if abs(ahead_s) > SKEW_FAIL_S:
        return broken(subject, text, advice)
    if abs(ahead_s) > SKEW_WARN_S:
        return doubtful(subject, text, advice)
    return fine(subject, f"its clock and ours agree within {SKEW_WARN_S:g} s")


def used(subject: str, used_bytes: int, most_bytes: int, advice: str) -> Condition:
    """How much of a quota is used."""
    share = used_bytes / most_bytes
    text = f"{share:.0%} of {size(most_bytes)} used"
    if share >= USED_FAIL:
        return broken(subject, text, advice)
    return doubtful(subject, text, advice) if share >= USED_WARN else fine(subject, text)


def free(subject: str, free_bytes: int, place: str) -> Condition:
    """How much room a disk has left."""
    text = f"{size(free_bytes)} free at {place}"
    advice = "free some space there, or choose another disk"
    if free_bytes < FREE_FAIL_BYTES:
        return broken(subject, text, advice)
    return doubtful(subject, text, advice) if free_bytes < FREE_WARN_BYTES else fine(subject, text)


def version(text: str) -> tuple[int, int, int] | None:
    """The numbers of a version, None where there are none."""
    match = _NUMBERS.match(text.strip())
    if match is None:
        return None
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)


def size(count: int) -> str:
    """Bytes in a unit that suits them."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def ahead(date: str | None, asked_at: float, answered_at: float) -> float | None:
    """Seconds that a server's clock is ahead of ours, by the `Date` of its answer; None if that is no date.

    `asked_at` and `answered_at` are Unix times of ours. A `Date` has whole seconds, so half of one is added.
    """
    parsed = parsedate_tz(date) if date else None
    if parsed is None:
        return None
    return mktime_tz(parsed) + 0.5 - (asked_at + answered_at) / 2
