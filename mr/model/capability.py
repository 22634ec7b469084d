"""Capabilities: what a handler requires, what a worker offers, and whether the two fit.

    required   gpu                              a name, as in JobX
               gpu and (linux or macos)         `and` binds closer than `or`
               gpu >= 2 and mem >= 8            so much of it
    offered    general, linux, gpu=2, mem=16    a name that is there, or an amount that is used up

What is required is kept in one **normal form**, so that handlers which say the same in other words share a topic: all
alternatives, each a list of terms, in order, without what another alternative already allows. A term without a
number takes one of an amount. Amounts are taken while an invocation runs; a name without an amount is never used up.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from mr.errors import InvalidName
from mr.model import names

NONE = "none"
"""What a handler says that any general worker may run."""
LENGTH_MAX = 500
ALTERNATIVES_MAX = 32
_TOKEN = re.compile(r"\s*(>=|[()]|[A-Za-z0-9_.-]+|\S)", re.ASCII)
_AMOUNT = re.compile(r"(?=.*[1-9])\d{1,9}(\.\d{1,3})?", re.ASCII)
_RESERVED = re.compile(r"x[0-9a-f]{8}", re.ASCII)
_WORDS = frozenset({"and", "or", "not"})
_HINT = "names joined by 'and' and 'or', with '>=' and a number where an amount is meant: gpu and (linux or mem >= 8)"

Amounts = Mapping[str, float | None]
"""By name; None for what is there without being used up."""


class Term(NamedTuple):
    """One name, and how much of it; None for a name alone."""

    name: str
    amount: float | None

    def __str__(self) -> str:
        return self.name if self.amount is None else f"{self.name} >= {self.amount:g}"

    @property
    def share(self) -> float:
        """What it takes of an amount."""
        return 1.0 if self.amount is None else self.amount

    def fits(self, offered: Amounts) -> bool:
        """Whether so much is there. A name without an amount is not so many of anything."""
        if self.name not in offered:
            return False
        amount = offered[self.name]
        return self.amount is None if amount is None else amount >= self.share


Alternative = tuple[Term, ...]


class Requirement:
    """What a handler requires: one of its alternatives, and all terms of that."""

    def __init__(self, alternatives: Iterable[Alternative]) -> None:
        self.alternatives = tuple(alternatives)
        self.text = " or ".join(" and ".join(map(str, terms)) for terms in self.alternatives)
        """The normal form."""
        is_plain = len(self.alternatives) == 1 == len(self.alternatives[0]) and self.alternatives[0][0].amount is None
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:8]
        self.word = self.text if is_plain else f"x{digest}"
        """What stands for it in a topic: a name is itself."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Requirement) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def is_plain(self) -> bool:
        """Whether it is a single name."""
        return self.word == self.text

    @property
    def example(self) -> str:
        """What a worker could say that it offers, to run it: `gpu=2,linux`."""
        return ",".join(written(dict(self.alternatives[0])))

    def fits(self, offered: Amounts) -> bool:
        """Whether a worker with these capabilities can ever run it."""
        return any(all(term.fits(offered) for term in terms) for terms in self.alternatives)

    def take(self, free: Amounts) -> dict[str, float] | None:
        """What running it takes of what is free, by name; None if nothing fits now."""
        for terms in self.alternatives:
            if all(term.fits(free) for term in terms):
                return {term.name: term.share for term in terms if free[term.name] is not None}
        return None

    def lacking(self, offered: Amounts) -> list[str]:
        """The fewest terms that are missing; empty if it fits."""
        missing = ([str(term) for term in terms if not term.fits(offered)] for terms in self.alternatives)
        return min(missing, key=len)


@lru_cache(4096)
def requirement(text: str) -> Requirement:
    """What a text requires; names are compared in lower case.

    Raises: InvalidName saying what was expected.
    """
    if len(text) > LENGTH_MAX:
        raise InvalidName(f"a capability of {len(text)} characters is not allowed", hint=f"{LENGTH_MAX} at most")
    found = _Parser(text).parse()
    kept = [one for one in found if not any(_allows(other, one) for other in found if other is not one)]
    return Requirement(sorted(kept, key=lambda terms: [(term.name, term.share) for term in terms]))


def offer(texts: Iterable[str]) -> dict[str, float | None]:
    """What capabilities written as `name` or `name=amount` offer.

    Raises: InvalidName.
    """
    offered: dict[str, float | None] = {}
    for text in texts:
        name, equals, amount = (part.strip().lower() for part in text.partition("="))
        if not is_capability(name) or name in offered or (equals and not _AMOUNT.fullmatch(amount)):
            raise InvalidName(
                f"capability {text.strip()[:100]!r} is not allowed here",
                hint="names with commas between, none twice, each with or without an amount: general,gpu=2,mem=16",
            )
        offered[name] = float(amount) if equals else None
    return offered


def written(offered: Amounts) -> list[str]:
    """The same as texts."""
    return [name if amount is None else f"{name}={amount:g}" for name, amount in offered.items()]


def is_capability(name: str) -> bool:
    """Whether a worker may offer a capability of this name."""
    return names.is_name(name) and name.lower() not in _WORDS and not _RESERVED.fullmatch(name.lower())


def _allows(wider: Alternative, narrower: Alternative) -> bool:
    """Whether whatever fits the second fits the first."""
    most = dict(narrower)
    for name, amount in wider:
        if name not in most:
            return False
        least = most[name]
        if amount is None and least is not None and least < 1.0:
            return False
        if amount is not None and (least is None or least < amount):
            return False
    return True


class _Parser:
    """A text to its alternatives, by descent: any ▶ all ▶ one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [found[1] for found in _TOKEN.finditer(text)]
        self._at = 0

    def parse(self) -> list[Alternative]:
        found = self._any()
        if self._at < len(self._tokens):
            raise self._wrong("'and', 'or', or the end")
        if len(self._tokens) > 1 and any(term.name == NONE for terms in found for term in terms):
            raise InvalidName(
                f"capability {self._text!r}: {NONE} stands alone", hint="any worker with 'general': general"
            )
        return list(dict.fromkeys(found))

    @property
    def _next(self) -> str:
        return self._tokens[self._at].lower() if self._at < len(self._tokens) else ""

    def _skip(self, token: str) -> bool:
        if self._next != token:
            return False
        self._at += 1
        return True

    def _any(self) -> list[Alternative]:
        found = self._all()
        while self._skip("or"):
            found += self._all()
        if len(found) > ALTERNATIVES_MAX:
            raise InvalidName(f"capability {self._text!r} has over {ALTERNATIVES_MAX} alternatives", hint="say less")
        return found

    def _all(self) -> list[Alternative]:
        found = self._one()
        while self._skip("and"):
            more = self._one()
            if len(found) * len(more) > ALTERNATIVES_MAX:
                raise InvalidName(
                    f"capability {self._text!r} has over {ALTERNATIVES_MAX} alternatives", hint="say less"
                )
            found = [_joined(one, other) for one, other in product(found, more)]
        return found

    def _one(self) -> list[Alternative]:
        if self._skip("("):
            found = self._any()
            if not self._skip(")"):
                raise self._wrong("')'")
            return found
        name = self._next
        if not is_capability(name):
            raise self._wrong("a name")
        self._at += 1
        if not self._skip(">="):
            return [(Term(name, None),)]
        amount = self._next
        if not _AMOUNT.fullmatch(amount):
            raise self._wrong(f"a number after '{name} >='")
        self._at += 1
        return [(Term(name, float(amount)),)]

    def _wrong(self, expected: str) -> InvalidName:
        got = repr(self._tokens[self._at][:100]) if self._next else "the end"
        return InvalidName(f"capability {self._text!r}: expected {expected}, got {got}", hint=_HINT)


def _joined(one: Alternative, other: Alternative) -> Alternative:
    """Both at once; of the same name the greater amount."""
    terms = {term.name: term for term in one}
    for term in other:
        known = terms.get(term.name, term)
        is_name = known.amount is None and term.amount is None
        terms[term.name] = Term(term.name, None if is_name else max(known.share, term.share))
    return tuple(terms[name] for name in sorted(terms))
