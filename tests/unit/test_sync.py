"""Sync of a folder: names, plans, all or nothing; and the sample handlers themselves."""

from __future__ import annotations

import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mr.adapters.language_file import languages
from mr.adapters.processors import python_body
from mr.adapters.processors.command import CommandProcessor
from mr.adapters.processors.python import PythonProcessor
from mr.adapters.stores.sqlite import SqliteStore
from mr.clock import SystemClock
from mr.errors import DefinitionError, InvalidHandler, InvalidStep, UnknownWorkflow
from mr.model.handler import Handler
from mr.ports.store import Store
from mr.services.registry import Registry
from mr.services.sync import Plan, Sync, name_of

SAMPLES = Path(__file__).parents[2] / "handlers"


def source(kind: str = "mapper", note: str = "", capability: str = "none") -> str:
    parameter = "arguments" if kind == "mapper" else "results"
    return (
        f'"""{note}\n**\nargument_spec: [{{name: {parameter}, type: list}}]\n'
        f'handler_type: {kind}\nrequired_capability: {capability}\n"""\nyield 1, 2\n'
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = SqliteStore(tmp_path / "mr.db")
    yield store
    store.close()


@pytest.fixture
def registry(store: Store) -> Registry:
    registry = Registry(store, [PythonProcessor()], SystemClock())
    registry.create_workflow("w", "")
    return registry


@pytest.fixture
def sync(registry: Registry) -> Sync:
    return Sync(registry)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "handlers"
    folder.mkdir()
    return folder


def write(folder: Path, **files: str) -> None:
    """Files by path, where `__` stands for the slash and `_dot_` for the dot."""
    for name, text in files.items():
        put(folder, name.replace("__", "/").replace("_dot_", "."), text)


def put(folder: Path, path: str, text: str | bytes) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)


def marks(plan: Plan) -> dict[str, str]:
    return {entry.name: entry.mark for entry in plan.entries}


def stored(store: Store) -> list[tuple[str, bytes]]:
    return [(entry.key, entry.value) for entry in store.range("").entries]


# Names


@pytest.mark.parametrize(
    ("path", "name"),
    [("map/wc/split.py", "map_wc_split"), ("top.py", "top"), ("a/x.y.py", "a_x.y"), ("a-b/c-d.py", "a-b_c-d")],
)
def test_JX_20_the_name_is_folders_and_file_up_to_the_last_dot(sync: Sync, folder: Path, path: str, name: str) -> None:
    assert name_of(path) == name
    put(folder, path, source())
    plan = sync.plan("w", folder)
    assert [(entry.mark, entry.name, entry.path) for entry in plan.entries] == [("+", name, path)]


def test_JX_21_hidden_private_and_unknown_files_are_not_handlers(sync: Sync, folder: Path) -> None:
    put(folder, "good.PY", source())
    for path in ("_x.py", ".hid.py", "_priv/in.py", ".git/in.py", "__pycache__/in.py", "a/_b/c.py", "Makefile"):
        put(folder, path, "no handler (")
    put(folder, "notes.txt", "x")
    put(folder, "a/data.json", "{}")
    put(folder, "odd.", "x")
    plan = sync.plan("w", folder)
    assert (marks(plan), plan.errors) == ({"good": "+"}, [])
    assert plan.warnings == [
        "notes.txt: no processor for 'txt', skipped",
        "odd.: no processor for '', skipped",
        "a/data.json: no processor for 'json', skipped",
    ]


def test_JX_26_two_files_with_one_name_are_an_error_that_names_both(sync: Sync, folder: Path) -> None:
    put(folder, "a/b_deep.py", source(note="1"))
    put(folder, "a/b/deep.py", source(note="2"))
    assert sync.plan("w", folder).errors == ["a/b_deep.py and a/b/deep.py both make the handler name a_b_deep"]


# Plans and what they do


def test_JX_22_new_changed_and_same_files_are_told_apart(sync: Sync, registry: Registry, folder: Path) -> None:
    write(folder, a_dot_py=source(), b_dot_py=source())
    assert marks(sync.plan("w", folder)) == {"a": "+", "b": "+"}
    assert marks(sync.apply(sync.plan("w", folder))) == {"a": "+", "b": "+"}
    write(folder, b_dot_py=source(note="new"), c_dot_py=source())
    assert marks(sync.plan("w", folder)) == {"a": "=", "b": "~", "c": "+"}
    sync.apply(sync.plan("w", folder))
    assert marks(sync.plan("w", folder)) == {"a": "=", "b": "=", "c": "="}
    assert registry.get_handler("w", "b").description == "new"


def test_JX_22_nothing_new_writes_nothing_unless_forced(
    sync: Sync, registry: Registry, store: Store, folder: Path
) -> None:
    write(folder, a_dot_py=source())
    sync.apply(sync.plan("w", folder))
    _, version, _ = registry.current("w")
    sync.apply(sync.plan("w", folder))
    assert registry.current("w")[1] == version
    forced = sync.plan("w", folder, force=True)
    assert marks(forced) == {"a": "~"}
    sync.apply(forced)
    assert registry.current("w")[1] > version


def test_JX_24_a_handler_without_a_file_goes_unless_a_step_names_it(
    sync: Sync, registry: Registry, folder: Path
) -> None:
    write(folder, m_dot_py=source(), c_dot_py=source("combiner"), r_dot_py=source("reducer"), x_dot_py=source())
    sync.apply(sync.plan("w", folder))
    registry.create_step("w", "s", "", "m", "c", "r")
    registry.create_step("w", "t", "", "m", "", "r")
    for name in "mcrx":
        (folder / f"{name}.py").unlink()
    plan = sync.plan("w", folder)
    assert {entry.name: (entry.mark, entry.steps) for entry in plan.entries} == {
        "c": ("!", ["s"]), "m": ("!", ["s", "t"]), "r": ("!", ["s", "t"]), "x": ("-", []),
    }  # fmt: skip
    assert plan.is_good
    assert marks(sync.apply(plan)) == {"c": "!", "m": "!", "r": "!", "x": "-"}
    assert sorted(registry.list_handlers("w")) == ["c", "m", "r"]


def test_JX_25_a_plan_checks_everything_and_writes_nothing(sync: Sync, store: Store, folder: Path) -> None:
    before = stored(store)
    write(folder, a_dot_py=source(), b_dot_py="yield (")
    assert sync.plan("w", folder).errors == ["b.py:1: '(' was never closed"]
    (folder / "b.py").unlink()
    assert sync.plan("w", folder).is_good
    assert stored(store) == before


def test_JX_27_all_errors_of_all_files_are_reported_and_nothing_is_stored_or_deleted(
    sync: Sync, store: Store, registry: Registry, folder: Path
) -> None:
    write(folder, old_dot_py=source(), kept_dot_py=source())
    sync.apply(sync.plan("w", folder))
    before = stored(store)
    (folder / "old.py").unlink()
    write(folder, a_dot_py="yield (", sub__b_dot_py=source("maper"), good_dot_py=source(), kept_dot_py="nonsense")
    put(folder, "my handler.py", source())
    put(folder, "latin.py", b"x = 1\n# \xe9\n")
    put(folder, "nul.py", source() + "\0")
    put(folder, "huge.py", source() + "#" * 5_000_000)
    put(folder, "cap.py", source(capability="x" * 60))
    plan = sync.plan("w", folder)
    assert {error.partition(":")[0] for error in plan.errors} == {
        "a.py", "sub/b.py", "kept.py", "my handler.py", "latin.py", "nul.py", "huge.py", "cap.py",
    }  # fmt: skip
    assert len(plan.errors) == 8
    assert "latin.py:2: is not UTF-8: byte 8" in plan.errors
    assert marks(plan)["old"] == "-"
    assert "kept" not in marks(plan)
    with pytest.raises(InvalidHandler) as caught:
        sync.apply(plan)
    assert str(caught.value).split("\n") == plan.errors
    assert stored(store) == before


def test_JX_28_a_rename_alone_changes_the_state(sync: Sync, registry: Registry, folder: Path) -> None:
    write(folder, a_dot_py=source())
    sync.apply(sync.plan("w", folder))
    state = registry.get_workflow("w").handlers_state
    (folder / "a.py").rename(folder / "b.py")
    plan = sync.plan("w", folder)
    assert marks(plan) == {"a": "-", "b": "+"}
    sync.apply(plan)
    assert registry.get_workflow("w").handlers_state != state


def test_JX_29_an_empty_folder_and_an_empty_workflow_are_no_error(sync: Sync, folder: Path) -> None:
    plan = sync.apply(sync.plan("w", folder))
    assert (plan.entries, plan.errors, plan.warnings) == ([], [], [])


def test_JX_39_a_file_that_changes_the_type_of_a_handler_in_use_is_an_error(
    sync: Sync, registry: Registry, folder: Path
) -> None:
    write(folder, m_dot_py=source(), r_dot_py=source("reducer"))
    plan = sync.plan("w", folder)
    sync.apply(plan)
    registry.create_step("w", "s", "", "m", "", "r")
    write(folder, m_dot_py=source("reducer"))
    assert sync.plan("w", folder).errors == ["step s names m as its mapper, but it is a reducer"]


def test_a_plan_that_has_grown_old_does_no_harm(sync: Sync, registry: Registry, folder: Path) -> None:
    write(folder, m_dot_py=source(), r_dot_py=source("reducer"), x_dot_py=source())
    sync.apply(sync.plan("w", folder))
    (folder / "x.py").unlink()
    old = sync.plan("w", folder)
    assert marks(old)["x"] == "-"
    registry.create_step("w", "s", "", "x", "", "r")
    assert marks(sync.apply(old)) == {"m": "=", "r": "=", "x": "!"}
    write(folder, x_dot_py=source("reducer"))
    with pytest.raises(InvalidStep):
        registry.store_handlers("w", sync.plan("w", folder).handlers)


def test_a_workflow_or_folder_that_does_not_exist_is_said_so(sync: Sync, folder: Path) -> None:
    with pytest.raises(UnknownWorkflow):
        sync.plan("x", folder)
    for wrong in (folder / "nowhere", SAMPLES / "README.md"):
        with pytest.raises(DefinitionError, match="is not a folder"):
            sync.plan("w", wrong)


def test_what_is_no_regular_file_is_not_read(sync: Sync, folder: Path) -> None:
    os.mkfifo(folder / "pipe.py")
    (folder / "gone.py").symlink_to(folder / "nowhere")
    (folder / "round").symlink_to(folder)
    put(folder, "real.py", source())
    (folder / "again.py").symlink_to(folder / "real.py")
    plan = sync.plan("w", folder)
    assert sorted(plan.errors) == [
        "gone.py:1: cannot be read: No such file or directory",
        "pipe.py:1: is no regular file",
    ]
    assert plan.warnings == ["round: a link to a folder, skipped"]
    assert marks(plan) == {"again": "+", "real": "+"}


@pytest.mark.parametrize(
    "name", [b"a\nb.py", b"a\xff.py", "\u202egnp.py".encode(), "nai\u0308ve.py".encode(), b"a b.py"]
)
def test_P_1_a_file_with_a_hostile_name_is_an_error(sync: Sync, folder: Path, name: bytes) -> None:
    (Path(os.fsencode(folder).decode()) / os.fsdecode(name)).write_text(source())
    plan = sync.plan("w", folder)
    assert len(plan.errors) == 1
    assert "\n" not in plan.errors[0]
    plan.errors[0].encode()
    assert plan.handlers == {}


# The samples


def scope(name: str) -> Any:
    """What a sample defines when it is run as the executor would, without an executor."""
    text = (SAMPLES / f"words/{name}.py").read_text()
    handler = PythonProcessor().check(f"{name}.py", text)
    names: dict[str, Any] = {}
    parameter = handler.argument_spec[0][0]
    code = (
        python_body.module_as_code(text, name)
        if handler.form == "module"
        else python_body.body_as_function(text, name, parameter)
    )
    exec(code, names)
    return SimpleNamespace(**names)


def reduce(results: list[tuple[str, Any]]) -> list[tuple[str, int]]:
    grouped: dict[str, list[Any]] = defaultdict(list)
    for key, value in results:
        grouped[key].append(value)
    return list(scope("sum").handle(list(grouped.items())))


def test_the_samples_sync_and_show_every_form_and_language(store: Store) -> None:
    others = [CommandProcessor(language) for language in languages().values()]
    registry = Registry(store, [PythonProcessor(), *others], SystemClock())
    registry.create_workflow("w", "")
    sync = Sync(registry)
    plan = sync.apply(sync.plan("w", SAMPLES))
    assert (plan.errors, set(marks(plan).values())) == ([], {"+"})
    found = registry.list_handlers("w")
    forms = {name: found[name].form for name in ("words_count", "words_ranges", "words_sum")}
    assert forms == {"words_count": "module", "words_ranges": "module", "words_sum": "body"}
    assert {record.source_type for record in found.values()} == {"python", *languages()}
    registry.create_step("w", "count_range", "", "words_count", "", "words_sum")
    registry.create_step("w", "count_files", "", "words_ranges", "", "words_sum")
    registry.create_job("w", "count", "", "count_files")


def test_the_samples_count_what_a_plain_program_counts(tmp_path: Path) -> None:
    texts = [
        b"",
        b"one",
        b"One two  one\n",
        b"x" * 5000 + b" y",
        b"A1b" * 700,
        "na\u00efve na\u00efve".encode(),
        random.Random(7).randbytes(6000),
    ]
    for number, text in enumerate(texts):
        put(tmp_path, f"d{number % 3}/f{number}.txt", text)
    put(tmp_path, "d0/other.dat", b"not counted")
    expected = Counter(word.lower().decode() for text in texts for word in re.findall(rb"[A-Za-z]+", text))
    mapped: list[str] = []
    arguments = [("root", str(tmp_path)), ("pattern", "**/*.txt"), ("chunk_kb", 1)]
    children = list(scope("ranges").handle(arguments, SimpleNamespace(map_to=mapped.append)))
    assert mapped == ["count_range"]
    assert len(children) == sum(-(-len(text) // 1024) for text in texts)
    results = [pair for child in children for pair in reduce(list(scope("count").handle([child], None)))]
    assert dict(reduce(results)) == dict(expected)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 100])
def test_a_word_is_counted_once_wherever_the_ranges_are_cut(tmp_path: Path, chunk: int) -> None:
    text = b"ab, cde f  ghij;K lmnop" + b"q" * 9000 + b" z\xc3\xa9z 1a2"
    put(tmp_path, "t", text)
    count = scope("count").handle
    found: Counter[str] = Counter()
    for start in range(0, len(text), chunk):
        found.update(dict(count([(str(tmp_path / "t"), [start, min(start + chunk, len(text))])], None)))
    assert found == Counter(word.lower().decode() for word in re.findall(rb"[A-Za-z]+", text))


@pytest.mark.parametrize(
    "arguments", [{"root": "/nowhere-at-all"}, {"root": "/tmp", "chunk_kb": 0}, {"root": "/tmp", "chunk_kb": -1}]
)
def test_wrong_arguments_of_the_sample_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected (root|chunk_kb) to be"):
        list(scope("ranges").handle(list(arguments.items()), SimpleNamespace(map_to=lambda step: None)))


def test_the_header_of_a_file_wins_over_its_extension(store: Store, folder: Path) -> None:
    others = [CommandProcessor(language) for language in languages().values()]
    registry = Registry(store, [PythonProcessor(), *others], SystemClock())
    registry.create_workflow("w", "")
    header = '# /// mr\n# source_type = "{}"\n# handler_type = "mapper"\n# required_capability = "none"\n# ///\n'
    put(folder, "a.py", "#!/bin/cat\n" + header.format("streaming"))
    put(folder, "b.sh", header.format("cobol"))
    plan = Sync(registry).plan("w", folder)
    assert plan.handlers["a"].source_type == "streaming"
    [problem] = plan.errors
    assert problem.startswith("b.sh:1: its header says source_type 'cobol', which no processor has")


def test_a_sample_is_a_handler_with_a_description() -> None:
    for file in (SAMPLES / "words").glob("*.py"):
        handler: Handler = PythonProcessor().check(file.name, file.read_text())
        assert len(handler.description) > 20
