"""`mr why`: what a request waits for, or how it ended, and what to do next."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from mr.cli.command import Command
from mr.cli.drawing import headline
from mr.cli.names import request_argument
from mr.cli.output import age, document, echo, json_option, say, shortened, style
from mr.cli.session import opened
from mr.cli.status import WRITER_ADVICE
from mr.model.capability import requirement
from mr.model.invocation import ErrorReport
from mr.model.request import RequestState
from mr.services.waits import GENERAL, Answer, Wait

SHOWN_MAX = 8
TEXT_MAX = 200


@click.command("why", cls=Command, examples=["mr why 3f2a", "mr why words/3f2a", "mr why 3f2a --json"])
@request_argument
@json_option
def why(name: str, as_json: bool) -> None:
    """Say what a request waits for: which invocation, on which worker, since when, after which attempts.

    Or which capability nobody offers; or, of a request that is over, how it ended.
    """
    with opened() as parts:
        w, r = parts.tracing.find(name)
        answer = parts.waits.of(w, r)
    if as_json:
        built: dict[str, Any] = msgspec.to_builtins(answer)
        document({**built, "next": advice(answer)})
        return
    echo(headline(answer.request, w, r))
    for line in _ended(answer) if answer.request.state.is_final else _waits(answer):
        echo(line)
    for speaker in answer.speakers[:SHOWN_MAX]:
        echo(f"  {speaker.path} printed last: {_short(speaker.line)}")
    if len(answer.speakers) > SHOWN_MAX:
        echo(f"  and {len(answer.speakers) - SHOWN_MAX:,} more print (--json)")
    if answer.printed is not None and not answer.speakers:
        last = answer.printed.text.rstrip().rpartition("\n")[2]
        echo(f"  last printed, by {answer.printed.path}: {_short(last)}")
    say(style(f"  next: {advice(answer)}", dim=True))


def advice(answer: Answer) -> str:
    """The next step to take."""
    r = answer.request_id[:12]
    match answer.request.state:
        case RequestState.SUCCEEDED:
            return f"mr request result {r}"
        case RequestState.CANCELLED:
            return f"mr request resume {r}"
        case RequestState.FAILED if answer.failed_path:
            return f"mr invocation show {r}.{answer.failed_path}, then mr request resume {r}"
        case RequestState.FAILED:
            return f"mr request resume {r}"
    if not answer.waits:
        return f"mr why {r}, in a moment"
    first = answer.waits[0]
    if first.how == "unserved" and first.kind == "write":
        return WRITER_ADVICE
    if first.how == "unserved":
        general = first.capability in ("", GENERAL)
        return "mr worker" if general else f"mr worker --capabilities {requirement(first.capability).example}"
    if first.attempts and first.kind in ("map", "reduce"):
        return f"mr invocation show {r}.{first.path}"
    if first.how == "running":
        return f"mr logs {r} -f, or mr request cancel {r}"
    if first.how == "queued":
        return "mr status, for what lies before it"
    return f"mr tree {r} -f"


def _ended(answer: Answer) -> list[str]:
    request = answer.request
    lines = []
    if request.state is RequestState.SUCCEEDED:
        lines.append("  it waits for nothing: it is done")
    elif request.state is RequestState.CANCELLED:
        lines.append("  it waits for nothing: somebody has cancelled it")
    elif answer.failed_path:
        lines.append(f"  invocation {answer.failed_path} failed, and no attempt is left")
    for report in answer.attempts:
        lines.append(f"  {_attempt(report)}")
    if not answer.attempts and request.error:
        lines.append(style(f"  {_short(request.error['type'] + ': ' + request.error['message'])}", fg="red"))
    return lines


def _waits(answer: Answer) -> list[str]:
    lines = []
    for wait in answer.waits[:SHOWN_MAX]:
        lines.append(f"  {_what(wait)} {_how(answer, wait)}{_since(wait)}")
        lines += [f"    {_attempt(report)}" for report in wait.attempts]
        if wait.printed:
            lines.append(f"    it printed last: {_short(wait.printed)}")
    if len(answer.waits) > SHOWN_MAX:
        lines.append(f"  and {len(answer.waits) - SHOWN_MAX:,} more, of which nothing is worse (--json)")
    if not answer.waits:
        lines.append("  nothing is due at this moment: what runs is about to be recorded")
    if answer.problem:
        lines.append(f"  what lies in the queue is not known: {answer.problem}")
    return lines


def _what(wait: Wait) -> str:
    if wait.kind == "write":
        return "its result is reduced, and"
    if wait.kind == "end":
        return "all is reduced; recording the end"
    many = f" and {wait.count - 1:,} more" if wait.count > 1 else ""
    return f"{wait.path}{many} ({wait.kind} of step {wait.step}, handler {wait.handler})"


def _how(answer: Answer, wait: Wait) -> str:
    several = wait.count > 1
    match wait.how:
        case "running":
            return f"{'are' if several else 'is'} being run by worker {', '.join(wait.workers)}"
        case "taken":
            verb = "is being written" if wait.kind == "write" else "have just begun" if several else "has just begun"
            return f"{verb}: a worker has the message"
        case "delayed":
            return f"wait{'' if several else 's'} for the next attempt"
        case "lost":
            return f"wait{'' if several else 's'}; no message asks for it now, and a worker will publish it again"
        case "queued":
            ahead = "" if wait.ahead is None else f" of {wait.ahead:,}"
            return f"wait{'' if several else 's'} in a queue{ahead}; {_takers(wait)}"
        case "unserved":
            return style(_nobody(answer, wait), fg="red")


def _takers(wait: Wait) -> str:
    is_one = wait.serving == 1
    if wait.kind == "write":
        return "1 worker writes" if is_one else f"{wait.serving:,} workers write"
    return f"{wait.serving:,} {'worker offers' if is_one else 'workers offer'} {wait.capability or 'it'}"


def _nobody(answer: Answer, wait: Wait) -> str:
    if not answer.workers:
        return "cannot go on: no worker runs"
    if wait.kind == "write":
        return f"waits to be written, and none of {answer.workers} workers writes"
    return f"wait{'s' if wait.count == 1 else ''} in vain: {wait.lacks}"


def _since(wait: Wait) -> str:
    return "" if wait.seconds is None else f", for {age(wait.seconds)}"


def _attempt(report: ErrorReport) -> str:
    where = f" on worker {report.worker}" if report.worker else ""
    return style(f"attempt {report.attempt} failed{where}: {_short(f'{report.type}: {report.message}')}", fg="red")


def _short(text: str) -> str:
    return shortened(" ".join(text.split()), TEXT_MAX)
