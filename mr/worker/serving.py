"""Serving: which workflows a worker takes messages of, and their newest handlers, known before they are needed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from mr.errors import MrError
from mr.model.capability import Amounts
from mr.ports.notifier import Notice
from mr.rules import routing
from mr.services.registry import Registry
from mr.settings import WorkerSettings

_log = logging.getLogger(__name__)


class Serving:
    """`learn` is given every version of a handler; `on_change` workflows, and topics with what they require; in
    the loop, by way of `post`. `tell` hears of handlers that have changed."""

    def __init__(
        self,
        registry: Registry,
        settings: WorkerSettings,
        offered: Amounts,
        *,
        learn: Callable[[str, str], None],
        on_change: Callable[[list[str], dict[str, str]], None],
        tell: Callable[[Notice], None],
        post: Callable[[Callable[[], None]], object],
    ) -> None:
        self._registry, self._wanted = registry, settings.workflows
        self._offered = offered
        self._learn, self._on_change, self._tell, self._post = learn, on_change, tell, post
        self._handlers: dict[str, dict[str, str]] = {}
        self.workflows: Sequence[str] = []
        self._topics: dict[str, str] = {}

    def look(self) -> None:
        """Read which workflows there are, and their definitions. In a thread; raises: StoreUnavailable."""
        names = list(self._wanted) if self._wanted is not None else sorted(self._registry.list_workflows())
        topics: dict[str, str] = {}
        for name in names:
            topics |= routing.served(name, self._offered, self._registry.requirements(name))
            try:
                _, _, definitions = self._registry.current(name)
                for reference in definitions.handlers.values():
                    self._learn(name, reference.version)
                self._note(name, {handler: found.version for handler, found in definitions.handlers.items()})
            except MrError as error:
                _log.warning("workflow %s: %s", name, error)
        self._post(lambda: self._serve(names, topics))

    def _note(self, w: str, now: dict[str, str]) -> None:
        """Tell that handlers are others than before, in JobX's words; the first ones are no news."""
        before = self._handlers.get(w)
        self._handlers[w] = now
        if before and before != now:
            new, gone = len(now.keys() - before.keys()), len(before.keys() - now.keys())
            updated = sum(before.get(handler, version) != version for handler, version in now.items())
            text = f"Applying handler updates: NEW=({new}) UPDATED=({updated}) DELETED=({gone})"
            _log.info("workflow %s: %s", w, text)
            self._tell(Notice(level="info", text=text, at=time.time(), workflow=w))

    def _serve(self, names: list[str], topics: dict[str, str]) -> None:
        if names != self.workflows:
            _log.info("serving %d workflows: %s", len(names), ", ".join(names))
        if names != self.workflows or topics != self._topics:
            self.workflows, self._topics = names, topics
            self._on_change(names, topics)
