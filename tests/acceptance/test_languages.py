"""JX-19: a handler may be in any language, chosen by the extension of its file or by its header."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mr.services.waits import Speaker
from tests.acceptance.conftest import Shared
from tests.acceptance.service import ROOT, Service, eventually
from tests.acceptance.sources import ALL, SUM, map_to, mapper, wait_for_file
from tests.servers import program

TEXTS = {"a": "To be or not to be", "b": "that is the question\nNot to be", "c": ""}
COUNTS = [["be", 3], ["is", 1], ["not", 2], ["or", 1], ["question", 1], ["that", 1], ["the", 1], ["to", 3]]
PROBES = {
    "javascript": ("node",),
    "perl": ("perl", "-MJSON::PP", "-e", "1"),
    "shell": ("bash",),
    "streaming": ("python3",),
}
ENDS = {"javascript": "js", "perl": "pl", "shell": "sh", "streaming": "py"}


def define(service: Service, w: str, files: dict[str, str], steps: dict[str, tuple[str, str | None, str]]) -> None:
    """Push files as they are, by their names, and bind them; each step but the first has a job of its own name."""
    folder = service.folder / w
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    registry = service.parts.registry
    registry.create_workflow(w, "of a test")
    plan = service.parts.sync.plan(w, folder)
    assert plan.is_good, plan.errors
    service.parts.sync.apply(plan)
    for step, handlers in steps.items():
        registry.create_step(w, step, "", *handlers)
    for job, step in zip(("job", *list(steps)[1:]), steps, strict=True):
        registry.create_job(w, job, "", step)


def header(kind: str, sign: str = "//") -> str:
    return f'{sign} /// mr\n{sign} handler_type = "{kind}"\n{sign} required_capability = "none"\n{sign} ///\n'


@pytest.mark.parametrize("language", PROBES)
def test_JX_19_the_sample_of_a_language_counts_words(pair: Shared, w: str, language: str) -> None:
    program(*PROBES[language])
    samples = ROOT / "handlers" / f"words_{language}"
    files = {path.name: path.read_text() for path in samples.glob(f"*.{ENDS[language]}")}
    define(pair, w, files, {"count": ("split", "combine" if len(files) == 3 else None, "add")})
    counts = [[word, str(count)] for word, count in COUNTS] if language == "streaming" else COUNTS
    assert sorted(pair.post(w, TEXTS).pairs) == counts
    if language == "streaming":
        assert len(files) == 2


def test_JX_19_handlers_of_several_languages_work_together(pair: Shared, w: str) -> None:
    for probe in PROBES.values():
        program(*probe)
    files = {
        "lines.js": header("mapper") + "export function* handle(args, ctx) {\n  ctx.mapTo('count');\n"
        "  ctx.session.set('seen', [...args].length);\n"
        "  for (const [name, text] of args) for (const line of text.split('\\n')) yield [name, line];\n}\n",
        "split.pl": (ROOT / "handlers/words_perl/split.pl").read_text(),
        "combine.sh": (ROOT / "handlers/words_shell/combine.sh").read_text(),
        "sum.py": SUM,
        "total.pl": header("reducer", "#") + "sub handle { my ($input, $ctx) = @_;\n"
        "  while (my ($word, $counts) = $input->next) {\n    my $sum = 0; $sum += $_ for @$counts;\n"
        "    $ctx->yield($word, $sum);\n  }\n"
        "  $ctx->yield('texts', $ctx->session_get('seen'));\n}\n",
    }
    define(pair, w, files, {"lines": ("lines", None, "total"), "count": ("split", "combine", "sum")})
    assert sorted(pair.post(w, TEXTS).pairs) == sorted([*COUNTS, ["texts", 3]])


def test_JX_19_what_fails_is_told_in_its_own_language(pair: Shared, w: str) -> None:
    program("node")
    broken = header("mapper") + "function deep() {\n  return undefined.field;\n}\n"
    broken += "export function* handle() {\n  yield deep();\n}\n"
    define(pair, w, {"broken.mjs": broken, "all.py": ALL}, {"step": ("broken", None, "all")})
    reply = pair.post(w)
    error = reply.error
    assert (error["class"], error["type"], error["handler"]) == ("exception", "TypeError", "broken")
    assert error["invocation"] == f"{reply.request_id}.0"
    assert error["version"] == pair.parts.registry.get_handler(w, "broken").version
    assert "at deep (handler(broken):6:" in error["traceback"]


def test_a_process_that_hangs_is_ended_by_its_time_out(pair: Shared, w: str) -> None:
    program("node")
    program("bash")

    def slow(sign: str) -> str:
        return header("mapper", sign).replace(f"{sign} ///\n", f"{sign} timeout_s = 0.5\n{sign} ///\n")

    files = {
        "js.js": slow("//") + "export function* handle() {\n  for (;;);\n}\n",
        "sh.sh": slow("#") + "handle() { sleep 1000; }\n",
        "all.py": ALL,
    }
    define(pair, w, files, {"step": ("js", None, "all"), "other": ("sh", None, "all")})
    for job, handler in (("job", "js"), ("other", "sh")):
        error = pair.post(w, job=job).error
        assert (error["class"], error["handler"]) == ("timeout", handler)
        assert f"(timeout_s of handler {handler})" in error["message"]


def test_what_runs_can_be_asked_for_the_last_line_that_it_printed(pair: Shared, w: str, tmp_path: Path) -> None:
    program("bash")
    gate = tmp_path / "gate"
    files = {
        "one.py": mapper(f"print('one')\nprint('of python')\n{wait_for_file(gate)}\n" + "yield MrConfigureToReturn()"),
        "two.sh": header("mapper", "#")
        + f"handle() {{ echo of the shell >&2; until [ -e {gate} ]; do sleep 0.05; done; }}\n",
        "all.py": ALL,
    }
    define(pair, w, files, {"step": ("one", None, "all"), "other": ("two", None, "all")})
    for job, line in (("job", "of python"), ("other", "of the shell")):
        r = pair.start(w, job=job)

        def speakers(r: str = r) -> list[Speaker]:
            return pair.parts.waits.of(w, r).speakers

        [speaker] = eventually(speakers, f"{job} says what it printed")
        assert (speaker.path, speaker.line) == ("0", line)
        assert speaker.worker in pair.workers()
        gate.touch()
        assert pair.result(w, r).status == 200
        gate.unlink()


def test_a_worker_without_the_program_fails_only_those_who_need_it(pair: Shared, w: str, tmp_path: Path) -> None:
    for name in ("bash", "cat", "mkdir"):
        (tmp_path / name).symlink_to(program(name))
    capability = f"bare-{w}"
    js = header("mapper").replace('"none"', f'"{capability}"') + "export function* handle() { yield [1, 2]; }\n"
    sh = header("mapper", "#").replace('"none"', f'"{capability}"') + "handle() { cat; }\n"
    steps: dict[str, tuple[str, str | None, str]] = {"step": ("js", None, "all"), "other": ("sh", None, "all")}
    define(pair, w, {"js.js": js, "sh.sh": sh, "all.py": ALL}, steps)
    with pair.worker(capability, only=w, PATH=str(tmp_path)):
        error = pair.post(w, {"k": "v"}).error
        assert error["class"] == "rejected"
        assert "this worker has no node on its PATH; apt-get install nodejs" in error["message"]
        assert pair.post(w, {"k": "v"}, job="other").pairs == [["k", ["v"]]]


def test_a_language_of_the_settings_is_served(pair: Shared, w: str) -> None:
    program("awk")
    example = ROOT / "examples" / "languages"
    with Service(pair.pair, {"MR_PROCESSORS": str(example / "processors.toml")}) as other, other.web(), other.worker():
        files: dict[str, Any] = {path.name: path.read_text() for path in (example / "handlers").glob("awk_*")}
        define(other, w, files, {"count": ("awk_split", None, "awk_add")})
        assert sorted(other.post(w, TEXTS).pairs) == COUNTS


def test_all_samples_are_pushed_by_a_machine_without_any_interpreter(
    pair: Shared, w: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    folder = pair.folder / f"{w}-samples"
    shutil.copytree(ROOT / "handlers", folder)
    pair.parts.registry.create_workflow(w, "of a test")
    plan = pair.parts.sync.plan(w, folder)
    assert plan.is_good, plan.errors
    assert len(plan.handlers) >= 14


def test_a_step_maps_from_python_to_javascript_many_times(pair: Shared, w: str) -> None:
    program("node")
    define(
        pair, w,
        {
            "start.py": map_to("leaf", "[(n, n) for n in range(500)]"),
            "square.js": header("mapper")
            + "export function* handle(args) {\n  for (const [k, v] of args) yield ['n', v * v];\n}\n",
            "sum.py": SUM,
        },
        {"leaf": ("square", None, "sum")},
    )  # fmt: skip
    pair.parts.registry.create_step(w, "start", "", "start", None, "sum")
    pair.parts.registry.create_job(w, "all", "", "start")
    assert pair.post(w, job="all").pairs == [["n", sum(n * n for n in range(500))]]
