"""Sources of handlers for tests, in both forms of Python: only the code differs, the header is written here."""

from __future__ import annotations

from textwrap import dedent
from typing import Any, Literal

Kind = Literal["mapper", "combiner", "reducer"]


def body(kind: Kind, code: str, *, capability: str = "none") -> str:
    """A file of JobX's form: a doc string with the header, then the code with its top-level `yield`."""
    parameter = "arguments" if kind == "mapper" else "results"
    header = f"""\
    \"\"\"Of a test.
    **
    argument_spec:
      - {{name: {parameter}, type: list}}
    handler_type: {kind}
    required_capability: {capability}
    \"\"\"
    """
    return dedent(header) + dedent(code).strip("\n") + "\n"


def module(kind: Kind, code: str, *, capability: str = "none", **options: Any) -> str:
    """A file with `def handle`, which the code defines; options such as `timeout_s` go into the header."""
    lines = [f'handler_type = "{kind}"', f'required_capability = "{capability}"']
    lines += [f"{name} = {value}" for name, value in options.items()]
    block = "\n".join(f"# {line}" for line in lines)
    return f'"""Of a test."""\n# /// mr\n{block}\n# ///\n{dedent(code).strip()}\n'


def mapper(code: str, *, capability: str = "none") -> str:
    """A mapper of JobX's form."""
    return body("mapper", code, capability=capability)


def combiner(code: str, *, capability: str = "none") -> str:
    """A combiner of JobX's form."""
    return body("combiner", code, capability=capability)


def reducer(code: str, *, capability: str = "none") -> str:
    """A reducer of JobX's form."""
    return body("reducer", code, capability=capability)


def wait_for_file(path: object) -> str:
    """Code that does not go on before a file exists; after a minute it gives up."""
    return dedent(f"""\
    import os, time
    until = time.monotonic() + 60
    while not os.path.exists({str(path)!r}):
        if time.monotonic() > until:
            raise TimeoutError("nobody opened the gate")
        time.sleep(0.01)
    """)


def note(path: object, what: str = "'.'") -> str:
    """Code that adds a line to a file: a memory outside of mr. `what` is an expression."""
    return f"with open({str(path)!r}, 'a') as notes: notes.write(str({what}) + chr(10))\n"


RETURN = mapper("""
yield MrConfigureToReturn()
for key, value in arguments:
    yield key, value
""")
"""Gives back its arguments."""

ALL = reducer("""
for key, values in results:
    yield key, values
""")
"""Gives back what it gets."""

SUM = reducer("""
for key, values in results:
    yield key, sum(values)
""")

FLAT = reducer("""
for key, values in results:
    yield key, [one for value in values for one in value]
""")
"""Lists of lists become lists."""


def map_to(step: str, pairs: str) -> str:
    """A mapper that maps to a step with the pairs that an expression gives."""
    return mapper(f"yield MrConfigureToMap({step!r})\nfor pair in {pairs}:\n    yield pair\n")
