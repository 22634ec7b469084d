"""A scope factory as a site may write one: it has a secret, and gives some of it to some handlers."""

from __future__ import annotations

import os
from typing import Any

from mr.worker.scopes import HandlerDefinition


class Factory:
    """Reads what it gives from its own environment, which executors do not have."""

    def get_handler_scope_factory(self, workflow: str) -> Of:
        return Of(workflow)


class Of:
    """The scopes of one workflow."""

    def __init__(self, workflow: str) -> None:
        self.workflow = workflow

    def get_scope(self, handler: HandlerDefinition) -> dict[str, Any]:
        if handler.name.startswith("bad"):
            raise PermissionError(f"the vault has nothing for {self.workflow}")
        return {"TOKEN": os.environ["SITE_TOKEN"], "WHO": [self.workflow, handler.name], "length": length, "SEP": "|"}


def length(text: str) -> int:
    """A function that handlers are given."""
    return len(text)
