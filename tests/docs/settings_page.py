"""`docs/settings.rst`: every setting with its default, from the table that the settings are read by.

    python -m tests.docs.settings_page      writes the page anew

What depends on the machine, or is too long for a table, is put in words here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from itertools import groupby

from mr.environment import VARIABLES
from mr.settings import Settings, Shown
from tests.docs.listings import ROOT

PAGE = ROOT / "docs" / "settings.rst"
NAME, VALUE, MEANING = 46, 27, 43

HEAD = """\
========
Settings
========

.. Written by python -m tests.docs.settings_page

Every process and command reads them from its environment. ``mr config show`` lists them with the values that hold,
and who gave them; a flag such as ``--bind`` wins over its variable, and an empty variable counts as unset. A wrong
value stops the start with one line that names the variable; a name that nobody knows is told, with the nearest that
is known. ``_S`` are seconds, ``_MB`` are 1,048,576 bytes, and both may have a fraction. JobX's names stand in
``docs/coming_from_jobx.rst``.
"""

TITLES: Mapping[str, str] = {
    "store": "Store and broker",
    "broker": "Store and broker",
    "worker": "Workers",
    "handlers": "Handlers",
    "http": "The front end",
    "cleaning": "What stays, and how long",
    "results": "Results that leave by a writer",
    "mail": "Results that leave by a writer",
    "notice": "Notifications",
    "notice_mail": "Notifications",
    "webhooks": "Webhooks",
    "files": "Shared files",
    "log": "The log of the service",
}
JOINED: Mapping[str, str] = {"MR_STORE": "store", "MR_BROKER": "broker", "MR_RESULT_WRITER": "results"}
WORDS: Mapping[str, str] = {
    "MR_STORE": "a SQLite file in ``$XDG_STATE_HOME/mr``",
    "MR_BROKER": "with SQLite the same file, else NSQ on this machine",
    "MR_EXECUTORS": "number of cores",
    "MR_HANDLER_MEMORY_MB": "0.8 of the machine's, divided by the executors",
    "MR_RESULT_EMAIL_WRITER_SUBJECT_TEMPLATE": "a line with job and workflow",
    "MR_RESULT_EMAIL_WRITER_TEXT_BODY_TEMPLATE": "lines with request, job and workflow",
    "MR_WEBHOOK_EVENTS": "all four",
}


def page() -> str:
    """The text of the page."""
    groups = {**{variable.name: variable.group for variable in VARIABLES}, **JOINED}
    order = list(dict.fromkeys(TITLES.values()))
    rows = sorted(
        Settings.from_env({}).shown(),
        key=lambda row: (order.index(TITLES[groups[row.name]]), row.name not in JOINED),
    )
    parts = [HEAD]
    for title, found in groupby(rows, key=lambda row: TITLES[groups[row.name]]):
        parts.append("\n".join(["", "", title, "=" * len(title), "", *table(list(found)), ""]))
    return "".join(parts)


def table(rows: list[Shown]) -> Iterator[str]:
    """A table of reStructuredText."""
    rule = "  ".join("=" * width for width in (NAME, VALUE, MEANING))
    yield from (rule, line("variable", "default", "what it says"), rule)
    for row in rows:
        value = WORDS.get(row.name) or (f"``{row.value}``" if row.value else "none")
        cells = [textwrap.wrap(text, width) for text, width in ((value, VALUE), (row.meaning, MEANING))]
        height = max(map(len, cells))
        name, *rest = [f"``{row.name}``"] + [""] * (height - 1)
        for number, first in enumerate([name, *rest]):
            yield line(first, *(cell[number] if number < len(cell) else "" for cell in cells))
    yield rule


def line(name: str, value: str, meaning: str) -> str:
    """A line of the table. In the first column `..` would be a comment, and nothing continues the row above."""
    return f"{name:<{NAME}}  {value:<{VALUE}}  {meaning}".rstrip()


if __name__ == "__main__":
    PAGE.write_text(page())
