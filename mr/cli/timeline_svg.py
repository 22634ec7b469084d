"""A timeline as SVG, for a browser: hovering over a bar tells what it is.

Bars of ten thousand invocations are thinner than a dot; those that touch and look the same are one rectangle.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from mr.cli.drawing import elapsed
from mr.cli.output import duration
from mr.cli.timeline import steps_of, ticks, told
from mr.services.timeline import Bar, Timeline

CHART, MARGIN, LABEL = 1000, 24, 150
ROW, BAR, GAP = 20, 16, 12
HEAD, FOOT = 64, 64
TOUCH = 0.5
"""Two bars that are nearer than this, in dots, are drawn as one."""
COLOURS = ("#1a73e8", "#34a853", "#a142f4", "#e8710a", "#12a4af", "#b06000")
FAILED = "#d93025"


def svg(found: Timeline) -> str:
    """The whole picture."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Timeline) -> Iterator[str]:
    rows = sum(len(lanes) for lanes in found.workers.values())
    width = MARGIN + LABEL + CHART + MARGIN
    body = rows * ROW + len(found.workers) * GAP
    height = HEAD + body + FOOT
    scale = CHART / found.seconds if found.seconds else 0.0
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="12" fill="#202124">'
    )
    yield '<rect width="100%" height="100%" fill="white"/>'
    request = found.request
    title = f"{found.workflow}/{request.job_name}: {request.state.value}, {duration(elapsed(request))}"
    yield f'<text x="{MARGIN}" y="28" font-size="16" font-weight="bold">{_text(title)}</text>'
    yield f'<text x="{MARGIN}" y="46" fill="#5f6368">{_text(found.request_id)}</text>'
    yield from _grid(found.seconds, scale, HEAD + body)
    y = HEAD + GAP // 2
    steps = steps_of(found)
    for worker, lanes in found.workers.items():
        yield f'<text x="{MARGIN}" y="{y + 13}">{_text(worker)}<title>{_text(told(lanes))}</title></text>'
        for bars in lanes:
            for bar in _merged(bars, scale):
                yield _bar(bar, y, scale, steps)
            y += ROW
        y += GAP
    yield from _legend(steps, HEAD + body + 44)
    yield "</svg>"


def _grid(seconds: float, scale: float, bottom: int) -> Iterator[str]:
    for at in ticks(seconds, 10):
        x = MARGIN + LABEL + at * scale
        yield f'<line x1="{x:.1f}" y1="{HEAD - 6}" x2="{x:.1f}" y2="{bottom}" stroke="#e8eaed"/>'
        text = duration(at) if at else "0"
        yield f'<text x="{x:.1f}" y="{bottom + 16}" font-size="10" fill="#5f6368" text-anchor="middle">{text}</text>'


def _merged(bars: list[Bar], scale: float) -> Iterator[Bar]:
    """Bars of one lane, those that touch and look alike as one."""
    last: Bar | None = None
    for bar in bars:
        if last is not None and _look(last) == _look(bar) and (bar.start_s - last.end_s) * scale < TOUCH:
            last = Bar(
                worker=bar.worker, kind=bar.kind, state=bar.state, path=last.path, step=bar.step,
                start_s=last.start_s, end_s=max(last.end_s, bar.end_s), busy_s=last.busy_s + bar.busy_s,
                count=last.count + bar.count, text=last.text,
            )  # fmt: skip
            continue
        if last is not None:
            yield last
        last = bar
    if last is not None:
        yield last


def _look(bar: Bar) -> tuple[str, str, str]:
    return bar.kind, bar.state, bar.step


def _bar(bar: Bar, y: int, scale: float, steps: list[str]) -> str:
    x = MARGIN + LABEL + bar.start_s * scale
    title = f"<title>{_text(_told(bar))}</title>"
    if bar.state == "failed":
        mark = f"M{x - 5:.1f} {y + 3}l10 10m0 -10l-10 10"
        return f'<path d="{mark}" stroke="{FAILED}" stroke-width="3" fill="none">{title}</path>'
    width = max((bar.end_s - bar.start_s) * scale, 1.0)
    colour = COLOURS[steps.index(bar.step) % len(COLOURS)] if bar.step in steps else "#80868b"
    solid = {"succeeded": "1" if bar.kind == "map" else "0.55", "running": "0.2"}[bar.state]
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" rx="{min(3, width / 3):.1f}" fill="{colour}" '
        f'fill-opacity="{solid}" stroke="{colour}" stroke-width="0.5">{title}</rect>'
    )


def _told(bar: Bar) -> str:
    more = f" and {bar.count - 1:,} more" if bar.count > 1 else ""
    lines = [
        f"{bar.path}{more}: {bar.kind} of {bar.step}, {bar.state}",
        f"from {duration(bar.start_s)} to {duration(bar.end_s)}",
    ]
    if bar.busy_s:
        lines.append(f"handlers ran {duration(bar.busy_s)}")
    if bar.text:
        lines.append(bar.text)
    return "\n".join(lines)


def _legend(steps: list[str], y: int) -> Iterator[str]:
    x = float(MARGIN + LABEL)
    for number, step in enumerate(steps):
        colour = COLOURS[number % len(COLOURS)]
        yield f'<rect x="{x:.0f}" y="{y - 10}" width="12" height="12" rx="2" fill="{colour}"/>'
        yield f'<text x="{x + 18:.0f}" y="{y}">{_text(step)}</text>'
        x += 34 + 7.5 * len(step)
    marks = "full: map, pale: reduce, faint: running, red: failed attempt"
    yield f'<text x="{x + 10:.0f}" y="{y}" fill="#5f6368">{marks}</text>'


def _text(text: str) -> str:
    """Any text as XML can hold it."""
    return escape("".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
