"""Serving: which workflows a worker takes messages of, and their newest handlers, known before they are needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mr.errors import MrError
from mr.rules import routing
from mr.services.registry import Registry
from mr.settings import WorkerSettings

_log = logging.getLogger(__name__)


class Serving:
    """`learn` is given every version of a handler; `on_change` workflows and topics, in the loop, by way of `post`."""

    def __init__(
        self,
        registry: Registry,
        settings: WorkerSettings,
        *,
        learn: Callable[[str, str], None],
        on_change: Callable[[list[str], list[str]], None],
        post: Callable[[Callable[[], None]], object],
    ) -> None:
        self._registry, self._wanted = registry, settings.workflows
        self._capabilities = [capability.name for capability in settings.capabilities]
        self._learn, self._on_change, self._post = learn, on_change, post
        self.workflows: Sequence[str] = []

    def look(self) -> None:
        """Read which workflows there are, and their definitions. In a thread; raises: StoreUnavailable."""
        names = list(self._wanted) if self._wanted is not None else sorted(self._registry.list_workflows())
        for name in names:
            try:
                _, _, definitions = self._registry.current(name)
                for reference in definitions.handlers.values():
                    self._learn(name, reference.version)
            except MrError as error:
                _log.warning("workflow %s: %s", name, error)
        self._post(lambda: self._serve(names))

    def _serve(self, names: list[str]) -> None:
        if names != self.workflows:
            self.workflows = names
            _log.info("serving %d workflows: %s", len(names), ", ".join(names))
            topics = [topic for name in names for topic in routing.topics(name, self._capabilities)]
            self._on_change(names, topics)
