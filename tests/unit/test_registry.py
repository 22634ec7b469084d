"""The registry: nothing dangles, changes do not race, and what went unanswered is found out."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mr import codec
from mr.adapters.processors.python import PythonProcessor
from mr.clock import SystemClock
from mr.errors import (
    AlreadyExists,
    DefinitionError,
    DefinitionInUse,
    InvalidHandler,
    InvalidName,
    InvalidStep,
    NotFound,
    StoreUnavailable,
    UnknownHandler,
    UnknownJob,
    UnknownStep,
    UnknownWorkflow,
    VersionConflict,
)
from mr.model.definitions import DefinitionSet
from mr.model.handler import Handler, HandlerRecord
from mr.model.workflow import Workflow
from mr.ports.store import Entry, Lease, Limits, Outcome, Page, Put, Store, Transaction, Watch
from mr.rules import definitions as rule
from mr.rules import keys
from mr.services.entities import Entities
from mr.services.registry import Registry


class Between(Store):
    """A store with a hand in between: `before` sees each transaction and may raise; answers can be lost."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.limits = inner.limits
        self.abilities = inner.abilities
        self.before: Callable[[Transaction], None] = lambda transaction: None
        self.lost_answers = 0
        self.lost_commits = 0
        self.commits: list[Transaction] = []

    def commit(self, transaction: Transaction) -> Outcome:
        self.before(transaction)
        if self.lost_commits:
            self.lost_commits -= 1
            raise StoreUnavailable("lost on the way", unknown=True)
        outcome = self.inner.commit(transaction)
        self.commits.append(transaction)
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreUnavailable("lost on the way back", unknown=True)
        return outcome

    def get(self, key: str) -> Entry | None:
        return self.inner.get(key)

    def range(self, prefix: str, *, after: str = "", limit: int = 1000, keys_only: bool = False) -> Page:
        return self.inner.range(prefix, after=after, limit=limit, keys_only=keys_only)

    def count(self, prefix: str) -> int:
        return self.inner.count(prefix)

    def delete_prefix(self, prefix: str, *, limit: int = 1000) -> int:
        return self.inner.delete_prefix(prefix, limit=limit)

    def watch(self, prefix: str, after_revision: int) -> Watch:
        return self.inner.watch(prefix, after_revision)

    def revision(self) -> int:
        return self.inner.revision()

    def grant(self, ttl_s: float) -> Lease:
        return self.inner.grant(ttl_s)

    def keep(self, lease: Lease) -> bool:
        return self.inner.keep(lease)

    def revoke(self, lease: Lease) -> None:
        self.inner.revoke(lease)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def store(store: Store) -> Between:
    store.limits = Limits()
    return Between(store)


@pytest.fixture
def registry(store: Between) -> Registry:
    return new_registry(store)


def new_registry(store: Store) -> Registry:
    return Registry(store, [PythonProcessor()], SystemClock())


def handler(kind: str = "mapper", capability: str = "none", note: str = "") -> Handler:
    parameter = "arguments" if kind == "mapper" else "results"
    return PythonProcessor().check(
        "x.py",
        f'# /// mr\n# handler_type = "{kind}"\n# required_capability = "{capability}"\n# ///\n'
        f"def handle({parameter}, ctx):\n    yield 1, 2  # {note}\n",
    )


HANDLERS = {"m": handler(), "m2": handler(note="2"), "c": handler("combiner"), "r": handler("reducer")}


@pytest.fixture
def words(registry: Registry) -> Registry:
    """A workflow `w` with handlers m, m2, c, r, the step `s` and the job `j`."""
    registry.create_workflow("w", "Words.")
    registry.store_handlers("w", HANDLERS)
    registry.create_step("w", "s", "Split.", "m", "c", "r")
    registry.create_job("w", "j", "Count.", "s")
    return registry


def everything(store: Store) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in store.range("", limit=10_000).entries}


def check_consistent(store: Store, registry: Registry, w: str) -> None:
    """What must hold whenever nobody is writing."""
    workflow, _, now = registry.current(w)
    assert workflow.handlers_state == now.hash
    assert rule.problems(now) == []
    assert set(registry.list_jobs(w)) == set(now.jobs)
    assert set(registry.list_steps(w)) == set(now.steps)
    for name, step in now.steps.items():
        record = registry.get_step(w, name)
        named = (record.map_handler_name, record.combine_handler_name, record.reduce_handler_name)
        assert named == (step.mapper, step.combiner, step.reducer)
    for name, initial in now.jobs.items():
        assert registry.get_job(w, name).initial_step_name == initial
    prefix = keys.handlers(w)
    stored = {entry.key.removeprefix(prefix): entry.value for entry in store.range(prefix, limit=5000).entries}
    records = {name: codec.decode(value, HandlerRecord).version for name, value in stored.items()}
    assert records == {name: reference.version for name, reference in now.handlers.items()}
    for name, reference in now.handlers.items():
        assert registry.handler(w, reference.version).version == reference.version, name


# Layout and content


def test_JX_2_JX_3_records_stand_under_their_keys_as_json_without_their_names(words: Registry, store: Between) -> None:
    def read(key: str) -> Any:
        entry = store.get(key)
        assert entry is not None, key
        return json.loads(entry.value)

    state = words.get_workflow("w").handlers_state
    assert read("entities/workflow/w") == {"description": "Words.", "handlers_state": state}
    assert read("entities/job/w/j") == {"workflow_name": "w", "description": "Count.", "initial_step_name": "s"}
    assert read("entities/step/w/s") == {
        "workflow_name": "w", "description": "Split.", "map_handler_name": "m",
        "combine_handler_name": "c", "reduce_handler_name": "r",
    }  # fmt: skip
    record = read("entities/handler/w/m")
    assert record["version"] == HANDLERS["m"].version
    assert {"workflow_name", "description", "argument_spec", "source_type", "source_code"} <= set(record)
    assert {"handler_type", "required_capability"} <= set(record)
    assert "name" not in record
    assert read(f"library/w/{record['version']}")["source_code"] == HANDLERS["m"].source_code
    assert read(f"definition_sets/w/{state}")["jobs"] == {"j": "s"}
    check_consistent(store, words, "w")


def test_JX_1_two_workflows_never_see_each_other(words: Registry, store: Between) -> None:
    words.create_workflow("w2", "Other.")
    assert (words.list_jobs("w2"), words.list_steps("w2"), words.list_handlers("w2")) == ({}, {}, {})
    words.store_handlers("w2", {"m": handler("reducer")})
    assert words.get_handler("w", "m").handler_type == "mapper"
    assert words.get_handler("w2", "m").handler_type == "reducer"
    words.delete_workflow("w2", force=True)
    check_consistent(store, words, "w")
    assert sorted(words.list_workflows()) == ["w"]


def test_what_is_made_is_got_listed_and_taken_away(words: Registry, store: Between) -> None:
    assert words.get_workflow("w").description == "Words."
    assert words.get_job("w", "j").description == "Count."
    assert words.get_step("w", "s").combine_handler_name == "c"
    assert words.get_handler("w", "m").source_code == HANDLERS["m"].source_code
    assert sorted(words.list_handlers("w")) == ["c", "m", "m2", "r"]
    words.delete_job("w", "j")
    assert words.delete_step("w", "s") == []
    for name in HANDLERS:
        assert words.delete_handler("w", name) == []
    check_consistent(store, words, "w")
    assert words.delete_workflow("w") == []
    assert everything(store) == {}


def test_JX_6_creating_what_exists_fails_and_overwrites_nothing(words: Registry, store: Between) -> None:
    before = everything(store)
    for create in (
        lambda: words.create_workflow("w", "new"),
        lambda: words.create_job("w", "j", "new", "s"),
        lambda: words.create_step("w", "s", "new", "m2", "", "r"),
        lambda: words.create_handler("w", "m", handler(note="new")),
    ):
        with pytest.raises(AlreadyExists):
            create()
    assert everything(store) == before


def test_JX_6_what_does_not_exist_cannot_be_got_changed_or_deleted(words: Registry) -> None:
    unknown: dict[type[DefinitionError], list[Callable[[], object]]] = {
        UnknownWorkflow: [
            lambda: words.get_workflow("x"), lambda: words.update_workflow("x", ""), lambda: words.current("x"),
            lambda: words.delete_workflow("x"), lambda: words.list_jobs("x"), lambda: words.list_steps("x"),
            lambda: words.list_handlers("x"), lambda: words.create_job("x", "j", "", "s"),
            lambda: words.get_job("x", "j"), lambda: words.store_handlers("x", {}),
            lambda: words.create_step("x", "s", "", "m", "", "r"), lambda: words.delete_handler("x", "m"),
        ],
        UnknownJob: [
            lambda: words.get_job("w", "x"), lambda: words.delete_job("w", "x"),
            lambda: words.update_job("w", "x", description=""),
        ],
        UnknownStep: [
            lambda: words.get_step("w", "x"), lambda: words.delete_step("w", "x"),
            lambda: words.update_step("w", "x", description=""),
        ],
        UnknownHandler: [lambda: words.get_handler("w", "x"), lambda: words.delete_handler("w", "x", force=True)],
    }  # fmt: skip
    for error, calls in unknown.items():
        for call in calls:
            with pytest.raises(error, match="'x'"):
                call()


@pytest.mark.parametrize("bad", ["", "..", ".", "/etc/passwd", "a/../b", "a b", "x\0", "x\n", "é", "x" * 101, "../w"])
def test_P_1_a_bad_name_is_refused_everywhere_and_writes_nothing(words: Registry, store: Between, bad: str) -> None:
    before = everything(store)
    for call in (
        lambda: words.create_workflow(bad, ""), lambda: words.get_workflow(bad), lambda: words.delete_workflow(bad),
        lambda: words.create_job("w", bad, "", "s"), lambda: words.get_job("w", bad), lambda: words.get_job(bad, "j"),
        lambda: words.create_step("w", bad, "", "m", "", "r"), lambda: words.delete_step("w", bad),
        lambda: words.store_handlers("w", {bad: handler()}), lambda: words.get_handler("w", bad),
        lambda: words.create_handler("w", bad, handler()), lambda: words.delete_handler("w", bad, force=True),
    ):  # fmt: skip
        with pytest.raises(InvalidName):
            call()
    for refused in (lambda: words.create_job("w", "k", "", bad), lambda: words.create_step("w", "t", "", bad, "", "r")):
        with pytest.raises(InvalidStep):
            refused()
    assert everything(store) == before


def test_JX_56_a_workflow_that_fits_no_topic_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidName, match="topic"):
        registry.create_workflow("x" * 60, "")
    registry.create_workflow("x" * 46, "")


def test_JX_56_a_capability_that_does_not_fit_a_topic_with_its_workflow_is_refused(registry: Registry) -> None:
    registry.create_workflow("x" * 46, "")
    with pytest.raises(InvalidName, match="topic"):
        registry.store_handlers("x" * 46, {"m": handler(capability="a-long-capability")})
    assert registry.list_handlers("x" * 46) == {}


# Steps and jobs


@pytest.mark.parametrize(
    ("mapper", "combiner", "reducer", "role", "text"),
    [
        ("x", "", "r", "mapper", "Map handler is invalid: [x] (no handler has this name; mappers: m, m2)"),
        ("m", "x", "r", "combiner", "Combine handler is invalid: [x] (no handler has this name; combiners: c)"),
        ("m", "", "x", "reducer", "Reduce handler is invalid: [x] (no handler has this name; reducers: r)"),
        ("m", "", "", "reducer", "Reduce handler is invalid: [] (no handler has this name; reducers: r)"),
        ("r", "", "r", "mapper", "Map handler is invalid: [r] (it is a reducer; mappers: m, m2)"),
        ("m", "m2", "r", "combiner", "Combine handler is invalid: [m2] (it is a mapper; combiners: c)"),
        ("m", "", "c", "reducer", "Reduce handler is invalid: [c] (it is a combiner; reducers: r)"),
    ],
)
def test_JX_38_JX_39_a_step_binds_existing_handlers_of_the_right_types(
    words: Registry, mapper: str, combiner: str, reducer: str, role: str, text: str
) -> None:
    for call in (
        lambda: words.create_step("w", "t", "", mapper, combiner, reducer),
        lambda: words.update_step("w", "s", mapper=mapper, combiner=combiner, reducer=reducer),
    ):
        with pytest.raises(InvalidStep) as caught:
            call()
        assert (str(caught.value), caught.value.role) == (text, role)
    assert sorted(words.list_steps("w")) == ["s"]


@pytest.mark.parametrize("none", ["", None])
def test_JX_38_an_empty_combiner_is_none(words: Registry, none: str | None) -> None:
    assert words.create_step("w", "t", "", "m", none, "r").combine_handler_name is None
    assert words.current("w")[2].steps["t"].combiner is None


def test_JX_40_a_job_needs_an_existing_initial_step(words: Registry) -> None:
    with pytest.raises(InvalidStep, match=r"Initial step is invalid: \[x\] \(the workflow has: s\)"):
        words.create_job("w", "k", "", "x")
    with pytest.raises(InvalidStep):
        words.update_job("w", "j", initial_step="x")
    assert sorted(words.list_jobs("w")) == ["j"]


def test_JX_40_what_is_in_use_is_not_deleted_and_its_users_are_named(words: Registry, store: Between) -> None:
    before = everything(store)
    for call, users in (
        (lambda: words.delete_step("w", "s"), ("job j",)),
        (lambda: words.delete_handler("w", "m"), ("step s", "job j")),
        (lambda: words.delete_handler("w", "c"), ("step s", "job j")),
        (lambda: words.delete_handler("w", "r"), ("step s", "job j")),
        (lambda: words.delete_workflow("w"), ("job j", "step s", "handler c", "handler m", "handler m2", "handler r")),
    ):
        with pytest.raises(DefinitionInUse) as caught:
            call()
        assert caught.value.users == users
    assert everything(store) == before


def test_JX_40_force_deletes_the_users_as_well_so_that_nothing_dangles(words: Registry, store: Between) -> None:
    assert words.delete_handler("w", "m", force=True) == ["step s", "job j"]
    assert sorted(words.list_handlers("w")) == ["c", "m2", "r"]
    check_consistent(store, words, "w")
    words.create_step("w", "s", "", "m2", "", "r")
    words.create_job("w", "j", "", "s")
    assert words.delete_step("w", "s", force=True) == ["job j"]
    check_consistent(store, words, "w")
    assert len(words.delete_workflow("w", force=True)) == 3
    assert everything(store) == {}


def test_steps_and_jobs_change_what_is_given_and_keep_the_rest(words: Registry, store: Between) -> None:
    words.create_step("w", "t", "", "m", "", "r")
    assert words.update_step("w", "s", mapper="m2").description == "Split."
    assert words.update_step("w", "s", combiner="").combine_handler_name is None
    assert words.update_step("w", "s", description="New.").map_handler_name == "m2"
    assert words.update_job("w", "j", initial_step="t").description == "Count."
    assert words.update_job("w", "j", description="New.").initial_step_name == "t"
    assert words.update_workflow("w", "New.").description == "New."
    check_consistent(store, words, "w")


def test_every_change_replaces_the_workflow_record_even_if_the_set_stays(words: Registry) -> None:
    _, before, definitions = words.current("w")
    words.update_job("w", "j", description="New.")
    _, after, same = words.current("w")
    assert (after > before, same) == (True, definitions)


def test_a_handler_is_renamed_in_all_steps_that_name_it(words: Registry, store: Between) -> None:
    for number in range(120):
        words.create_step("w", f"t{number:03}", f"Step {number}.", "m", "", "r")
    assert len(words.replace_in_steps("w", "mapper", "m", "m2", simulate=True)) == 121
    assert words.get_step("w", "t007").map_handler_name == "m"
    assert len(words.replace_in_steps("w", "mapper", "m", "m2")) == 121
    assert {step.map_handler_name for step in words.list_steps("w").values()} == {"m2"}
    assert words.get_step("w", "t007").description == "Step 7."
    assert words.replace_in_steps("w", "combiner", "c", "") == ["s"]
    assert words.get_step("w", "s").combine_handler_name is None
    assert words.replace_in_steps("w", "mapper", "m", "m2") == []
    assert words.replace_in_steps("w", "mapper", "m2", "m2") != []
    check_consistent(store, words, "w")


def test_a_mass_rename_to_something_wrong_changes_nothing(words: Registry, store: Between) -> None:
    before = everything(store)
    for kind, target, text in (
        ("mapper", "x", "Map handler is invalid"),
        ("mapper", "r", "Map handler is invalid"),
        ("mapper", "", "Map handler is invalid"),
        ("maper", "m2", r"Handler type is invalid: \[maper\]"),
    ):
        with pytest.raises(InvalidStep, match=text):
            words.replace_in_steps("w", kind, "m", target)
        with pytest.raises(InvalidStep, match=text):
            words.replace_in_steps("w", kind, "no-step-names-it", target, simulate=True)
    assert everything(store) == before


# Handlers


def test_JX_23_JX_28_a_rename_changes_the_state_and_no_version(words: Registry) -> None:
    state = words.get_workflow("w").handlers_state
    renamed = {("m3" if name == "m2" else name): value for name, value in HANDLERS.items()}
    changes = words.store_handlers("w", renamed, remove_others=True)
    assert (changes.new, changes.removed, changes.changed) == (["m3"], ["m2"], [])
    assert words.get_workflow("w").handlers_state != state
    assert words.get_handler("w", "m3").version == HANDLERS["m2"].version


def test_JX_22_equal_content_is_not_written_unless_forced(words: Registry, store: Between) -> None:
    store.commits.clear()
    assert words.store_handlers("w", HANDLERS).same == sorted(HANDLERS)
    assert store.commits == []
    assert words.store_handlers("w", HANDLERS, force=True).changed == sorted(HANDLERS)
    assert store.commits != []
    changes = words.store_handlers("w", {**HANDLERS, "m": handler(note="changed")})
    assert (changes.changed, len(changes.same)) == (["m"], 3)
    check_consistent(store, words, "w")


def test_JX_24_a_handler_that_a_step_names_in_any_role_is_kept(words: Registry, store: Between) -> None:
    changes = words.store_handlers("w", {}, remove_others=True)
    assert (changes.removed, changes.kept) == (["m2"], {"c": ["s"], "m": ["s"], "r": ["s"]})
    check_consistent(store, words, "w")


def test_JX_39_a_handler_in_use_cannot_change_its_type(words: Registry, store: Between) -> None:
    before = words.get_workflow("w")
    with pytest.raises(InvalidStep, match="step s names m as its mapper, but it is a reducer"):
        words.store_handlers("w", {"m": handler("reducer")})
    assert words.get_workflow("w") == before
    check_consistent(store, words, "w")


def test_a_handler_given_as_fields_and_code_is_checked_like_a_file(words: Registry) -> None:
    plain = Handler(
        description="d", argument_spec=[("arguments", "list")], source_type="python", source_code="yield 1, 2\n",
        handler_type="mapper", required_capability="GPU",
    )  # fmt: skip
    assert words.create_handler("w", "by_hand", plain).required_capability == "gpu"
    with pytest.raises(InvalidHandler, match="bad:1: is no generator"):
        words.create_handler("w", "bad", msgspec.structs.replace(plain, source_code="return 1"))
    with pytest.raises(InvalidHandler, match=r"source_type 'perl' has no processor \(there are: python\)"):
        words.create_handler("w", "bad", msgspec.structs.replace(plain, source_type="perl"))
    with pytest.raises(UnknownHandler):
        words.get_handler("w", "bad")


def test_a_request_keeps_the_set_and_the_sources_it_was_accepted_with(words: Registry, store: Between) -> None:
    state = words.get_workflow("w").handlers_state
    words.store_handlers("w", {"m": handler(note="newer")})
    words.delete_step("w", "s", force=True)
    words.store_handlers("w", {}, remove_others=True)
    other = new_registry(store)
    pinned = other.definitions("w", state)
    assert pinned.jobs == {"j": "s"}
    assert other.handler("w", pinned.mapper("s").version) == HANDLERS["m"]


def test_sets_are_read_once_and_known_without_the_store_from_then_on(words: Registry, store: Between) -> None:
    state = words.get_workflow("w").handlers_state
    other = new_registry(store)
    assert other.known("w", state) is None
    assert other.definitions("w", state) is other.definitions("w", state) is other.known("w", state)
    with pytest.raises(NotFound, match="definition_sets/w/0000"):
        other.definitions("w", "0000")
    with pytest.raises(NotFound, match="library/w/0000"):
        other.handler("w", "0000")


# Big pushes


def test_two_thousand_handlers_become_current_at_one_moment(registry: Registry, store: Between) -> None:
    registry.create_workflow("w", "")
    many = {f"h{number:04}": handler(note=str(number)) for number in range(2000)}
    seen = set()

    def look(transaction: Transaction) -> None:
        seen.add(len(registry.current("w")[2].handlers))

    store.before = look
    assert len(registry.store_handlers("w", many).new) == 2000
    assert seen == {0, 2000}
    check_consistent(store, registry, "w")
    assert len(registry.list_handlers("w")) == 2000
    changes = registry.store_handlers("w", {"h0000": many["h0000"]}, remove_others=True)
    assert len(changes.removed) == 1999
    check_consistent(store, registry, "w")


def test_a_big_push_that_dies_before_its_change_has_changed_nothing(registry: Registry, store: Between) -> None:
    registry.create_workflow("w", "")
    many = {f"h{number}": handler(note=str(number)) for number in range(300)}

    def die(transaction: Transaction) -> None:
        if any(operation.key == keys.workflow("w") for operation in transaction.operations):
            raise StoreUnavailable("gone")

    store.before = die
    with pytest.raises(StoreUnavailable):
        registry.store_handlers("w", many)
    assert registry.list_handlers("w") == {}
    check_consistent(store, registry, "w")


def test_a_big_push_that_dies_after_its_change_is_good_and_the_next_push_mends_the_records(
    registry: Registry, store: Between
) -> None:
    registry.create_workflow("w", "")
    many = {f"h{number:03}": handler(note=str(number)) for number in range(300)}

    def die(transaction: Transaction) -> None:
        if any(operation.key.startswith(keys.handlers("w")) for operation in transaction.operations):
            raise StoreUnavailable("gone")

    store.before = die
    with pytest.raises(StoreUnavailable):
        registry.store_handlers("w", many)
    store.before = lambda transaction: None
    assert store.count(keys.handlers("w")) == 0
    assert len(registry.list_handlers("w")) == 300
    assert registry.get_handler("w", "h007").version == many["h007"].version
    assert registry.store_handlers("w", many).same == sorted(many)
    check_consistent(store, registry, "w")


def test_what_the_store_cannot_hold_is_refused_before_anything_changes(registry: Registry, store: Between) -> None:
    registry.create_workflow("w", "")
    before = registry.get_workflow("w")
    store.limits = Limits(value_bytes=2000)
    with pytest.raises(DefinitionError, match="the store takes 2000"):
        registry.store_handlers("w", {f"h{number}": handler(note=str(number)) for number in range(50)})
    assert registry.get_workflow("w") == before


def test_the_biggest_handler_that_is_accepted_can_be_stored(registry: Registry, store: Between) -> None:
    registry.create_workflow("w", "")
    start = '"""Big."""\n# /// mr\n# handler_type = "mapper"\n# required_capability = "none"\n# ///\n'
    start += 'def handle(arguments, ctx):\n    yield "'
    source = start + '\\"' * ((512 * 1024 - len(start) - 4) // 2) + '"\n'
    big = PythonProcessor().check("big.py", source)
    registry.store_handlers("w", {"big": big, "big2": big})
    assert registry.get_handler("w", "big").source_code == source
    check_consistent(store, registry, "w")


# Races


def test_changes_of_one_workflow_from_many_threads_all_happen(words: Registry, store: Between) -> None:
    failures: list[Exception] = []

    def define(number: int) -> None:
        mine = new_registry(store)
        try:
            for round_ in range(5):
                mine.store_handlers("w", {f"m{number}_{round_}": handler(note=f"{number} {round_}")})
                mine.create_step("w", f"s{number}_{round_}", "", f"m{number}_{round_}", "", "r")
                mine.create_job("w", f"j{number}_{round_}", "", f"s{number}_{round_}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=define, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(words.list_jobs("w")) == 31
    check_consistent(store, words, "w")


def test_of_many_who_create_one_name_exactly_one_succeeds(words: Registry, store: Between) -> None:
    results: list[str] = []

    def create(number: int) -> None:
        try:
            results.append(new_registry(store).create_job("w", "one", f"{number}", "s").description)
        except AlreadyExists:
            results.append("refused")

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results.count("refused") == 7
    assert words.get_job("w", "one").description in results


def test_a_step_cannot_take_a_handler_that_goes_at_the_same_time(words: Registry, store: Between) -> None:
    if not store.abilities.transactions:
        return  # the lock keeps the others out meanwhile

    def delete_first(transaction: Transaction) -> None:
        if any(operation.key == keys.step("w", "t") for operation in transaction.operations):
            store.before = lambda transaction: None
            new_registry(store).delete_handler("w", "m2")

    store.before = delete_first
    with pytest.raises(InvalidStep, match=r"Map handler is invalid: \[m2\]"):
        words.create_step("w", "t", "", "m2", "", "r")
    check_consistent(store, words, "w")


def test_a_change_gives_up_when_others_never_stop(words: Registry, store: Between) -> None:
    if not store.abilities.transactions:
        return  # the lock keeps the others out meanwhile

    class Hurried(SystemClock):
        def monotonic(self) -> float:
            self.time = getattr(self, "time", 0.0) + 1
            return self.time

    hurried = Registry(store, [PythonProcessor()], Hurried())

    def disturb(transaction: Transaction) -> None:
        if any(operation.key == keys.job("w", "k") for operation in transaction.operations):
            words.update_workflow("w", "again")

    store.before = disturb
    with pytest.raises(VersionConflict, match="keep changing"):
        hurried.create_job("w", "k", "", "s")
    store.before = lambda transaction: None
    with pytest.raises(UnknownJob):
        words.get_job("w", "k")


def test_a_lost_answer_is_no_failure_and_no_second_creation(words: Registry, store: Between) -> None:
    def lose(transaction: Transaction) -> None:
        if transaction.conditions:
            store.lost_answers = 1
            store.before = lambda transaction: None

    store.before = lose
    assert words.create_job("w", "k", "K.", "s").description == "K."
    assert words.get_job("w", "k").description == "K."
    store.before = lose
    words.delete_job("w", "k")
    store.before = lose
    assert words.create_workflow("w3", "").description == ""
    store.before = lose
    assert words.update_job("w", "j", description="Other.").description == "Other."
    check_consistent(store, words, "w")


def test_a_lost_change_is_sent_again_and_in_the_end_reported_as_unknown(words: Registry, store: Between) -> None:
    def lose(times: int) -> Callable[[Transaction], None]:
        def before(transaction: Transaction) -> None:
            if times and any(operation.key == keys.workflow("w") for operation in transaction.operations):
                store.lost_commits = times
                store.before = lambda transaction: None

        return before

    store.before = lose(2)
    words.create_job("w", "k", "", "s")
    store.before = lose(3)
    with pytest.raises(StoreUnavailable) as caught:
        words.create_job("w", "k2", "", "s")
    assert caught.value.unknown
    check_consistent(store, words, "w")


# Workflows that go


def test_JX_40_a_workflow_with_running_requests_stays_even_when_forced(words: Registry, store: Between) -> None:
    store.inner.commit(Transaction(operations=[Put(keys.active("w", "a" * 40), b'{"epoch":1}')]))
    with pytest.raises(DefinitionInUse, match="1 unfinished requests") as caught:
        words.delete_workflow("w", force=True)
    assert caught.value.users == ("1 requests",)
    check_consistent(store, words, "w")
    assert sorted(words.list_jobs("w")) == ["j"]


def test_a_request_accepted_while_its_workflow_goes_keeps_what_it_is_pinned_to(words: Registry, store: Between) -> None:
    _, version, pinned = words.current("w")

    def accept(transaction: Transaction) -> None:
        if any(operation.key == keys.workflow("w") for operation in transaction.operations):
            store.before = lambda transaction: None
            put = Put(keys.active("w", "a" * 40), b'{"epoch":1}')
            assert words.current("w")[1] == version
            store.inner.commit(Transaction(operations=[put]))

    store.before = accept
    with pytest.raises(DefinitionInUse):
        words.delete_workflow("w", force=True)
    other = new_registry(store)
    assert other.definitions("w", pinned.hash) == pinned
    assert other.handler("w", pinned.mapper("s").version) == HANDLERS["m"]
    assert other.list_jobs("w") == {}


def test_a_workflow_that_is_defined_anew_while_it_goes_is_not_destroyed(words: Registry, store: Between) -> None:
    def define(transaction: Transaction) -> None:
        if [operation.key for operation in transaction.operations] == [keys.workflow("w")]:
            if isinstance(transaction.operations[0], Put):
                return
            store.before = lambda transaction: None
            new_registry(store).store_handlers("w", HANDLERS)

    store.before = define
    with pytest.raises(VersionConflict):
        words.delete_workflow("w", force=True)
    assert sorted(words.list_handlers("w")) == sorted(HANDLERS)
    check_consistent(store, words, "w")


def test_what_a_deletion_left_behind_does_not_come_back(words: Registry, store: Between) -> None:
    def die(transaction: Transaction) -> None:
        if any(operation.key.startswith("entities/job/") for operation in transaction.operations):
            raise StoreUnavailable("gone")

    store.before = die
    with pytest.raises(StoreUnavailable):
        words.delete_workflow("w", force=True)
    store.before = lambda transaction: None
    with pytest.raises(UnknownWorkflow):
        words.list_jobs("w")
    assert store.count("entities/job/w/") == 1
    words.create_workflow("w", "Anew.")
    assert everything(store).keys() == {"entities/workflow/w", f"definition_sets/w/{DefinitionSet().hash}"}
    assert words.list_steps("w") == {}


# Entities


def test_an_entity_is_replaced_and_deleted_only_under_its_version(store: Between) -> None:
    entities = Entities(store, "workflow", Workflow, keys.workflow, UnknownWorkflow)
    first = entities.create(Workflow(description="1"), "a")
    second = entities.replace(Workflow(description="2"), first, "a")
    with pytest.raises(VersionConflict, match="workflow 'a'"):
        entities.replace(Workflow(description="3"), first, "a")
    with pytest.raises(VersionConflict, match="workflow 'a'"):
        entities.delete(first, "a")
    assert entities.get("a").description == "2"
    entities.delete(second, "a")
    for call in (lambda: entities.delete(second, "a"), lambda: entities.replace(Workflow(description=""), second, "a")):
        with pytest.raises(NotFound, match="workflow 'a' does not exist"):
            call()
    assert entities.find("a") is None


def test_entities_are_listed_over_many_pages_in_order(store: Between) -> None:
    entities = Entities(store, "workflow", Workflow, keys.workflow, UnknownWorkflow)
    for number in range(1200):
        entities.create(Workflow(description=""), f"w{number:04}")
    assert [name for name, _ in entities.list(keys.WORKFLOWS)] == [f"w{number:04}" for number in range(1200)]
