"""Behaviours broken on purpose: small edits of the source, each with the test that must fail then.

`scripts/mutants` applies them, one at a time, in a copy of the tree. A test that passes all the same tests nothing.
"""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """In `file`, which has `old` exactly once, `new` takes its place; then `test`, as `file::name`, must fail."""

    file: str
    old: str
    new: str
    test: str


def _edits(file: str, *rows: tuple[str, str, str]) -> list[Edit]:
    """Edits of one file; a test stands there as `noun::JX_…`."""
    found = []
    for old, new, test in rows:
        noun, _, name = test.partition("::")
        found.append(Edit(file, old, new, f"tests/unit/test_{noun}.py::test_{name}"))
    return found


EDITS = [
    *_edits(
        "mr/rules/keys.py",
        (
            '{w}/{r}"\n\n\ndef active',
            '{r}/{w}"\n\n\ndef active',
            "cli_jobx::JX_4_keys_have_no_leading_slash_and_a_request_prints_as_pure_json",
        ),
        ('quote(name, safe="")', "name", "names::JX_8_a_session_key_may_be_any_text_and_stays_below_its_session"),
        ('f"entities/workflow/{w}"', '"entities/workflow/w"', "registry::JX_1_two_workflows_never_see_each_other"),
        (
            'f"entities/step/{w}/{name}"',
            'f"entities/steps/{w}/{name}"',
            "registry::JX_2_JX_3_records_stand_under_their_keys_as_json_without_their_names",
        ),
    ),
    *_edits(
        "mr/model/names.py",
        (
            'r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}"',
            'r"[A-Za-z0-9_][A-Za-z0-9_.]{0,99}"',
            "names::JX_8_names_may_have_hyphens",
        ),
        ('r"[0-9a-f]{40}"', 'r"[0-9a-fA-F]{40}"', "names::JX_5_anything_else_is_no_request_id"),
    ),
    *_edits(
        "mr/model/handler.py",
        (
            'Literal["mapper", "combiner", "reducer"]',
            'Literal["mapper", "combiner", "reducer", "joiner"]',
            "codec::JX_7_a_record_with_a_wrong_field_is_refused_by_its_name",
        ),
        (
            'in ("none", "")',
            'in ("",)',
            "python_processor::JX_17_a_handler_that_requires_none_runs_on_any_general_worker",
        ),
        (
            "codec.canonical(msgspec.to_builtins(self))",
            "codec.canonical(self.description)",
            "python_processor::JX_23_equal_files_share_a_version_and_any_difference_changes_it",
        ),
    ),
    *_edits(
        "mr/model/definitions.py",
        (
            "codec.canonical(msgspec.to_builtins(self))",
            "codec.canonical(sorted(one.version for one in self.handlers.values()))",
            "sync::JX_28_a_rename_alone_changes_the_state",
        ),
    ),
    *_edits(
        "mr/model/message.py",
        (
            'rename={"from_": "from"}',
            'rename={"from_": "start"}',
            "message::JX_59_a_message_is_plain_json_with_the_version_of_its_format",
        ),
    ),
    *_edits(
        "mr/rules/routing.py",
        ("{1,64}", "{1,640}", "names::JX_56_a_topic_has_at_most_sixty_four_characters_in_both_directions"),
        (
            "mr.{workflow}.{direction}.",
            "mr.{direction}.{workflow}.",
            "names::JX_52_topics_are_named_by_workflow_direction_and_capability",
        ),
    ),
    *_edits(
        "mr/rules/lifecycle.py",
        (
            "is_done=to.is_final",
            "is_done=True",
            "writing::JX_87_the_root_is_recorded_and_the_request_is_not_done_before_it_is_written",
        ),
    ),
    *_edits(
        "mr/rules/definitions.py",
        ("elif force or known.version", "elif known.version", "sync::JX_22_nothing_new_writes_nothing_unless_forced"),
        (
            "in (step.mapper, step.combiner, step.reducer)",
            "in (step.mapper, step.reducer)",
            "registry::JX_24_a_handler_that_a_step_names_in_any_role_is_kept",
        ),
        (
            "if handler.handler_type != handler_type:",
            "if handler.handler_type == 'joiner':",
            "registry::JX_38_JX_39_a_step_binds_existing_handlers_of_the_right_types",
        ),
        ("combiner=combiner or None", "combiner=combiner", "registry::JX_38_an_empty_combiner_is_none"),
    ),
    *_edits(
        "mr/services/registry.py",
        (
            "conditions=[Absent(keys.workflow(name))],",
            "",
            "registry::JX_6_creating_what_exists_fails_and_overwrites_nothing",
        ),
        (
            "if users and not force:",
            "if users and force:",
            "registry::JX_40_what_is_in_use_is_not_deleted_and_its_users_are_named",
        ),
        ("if step not in now.steps:", "if not step:", "registry::JX_40_a_job_needs_an_existing_initial_step"),
        (
            "        if running:\n",
            "        if running > 1:\n",
            "registry::JX_40_a_workflow_with_running_requests_stays_even_when_forced",
        ),
    ),
    *_edits(
        "mr/services/sync.py",
        (
            'path.rpartition(".")[0].replace',
            'path.partition(".")[0].replace',
            "sync::JX_20_the_name_is_folders_and_file_up_to_the_last_dot",
        ),
        ('startswith(("_", "."))', 'startswith("_")', "sync::JX_21_hidden_private_and_unknown_files_are_not_handlers"),
        ("if paths[1:]", "if paths[2:]", "sync::JX_26_two_files_with_one_name_are_an_error_that_names_both"),
        (
            "if plan.errors:",
            "if not plan.handlers:",
            "sync::JX_27_all_errors_of_all_files_are_reported_and_nothing_is_stored_or_deleted",
        ),
    ),
    *_edits(
        "mr/services/tracing.py",
        (
            "mapped_count=node.children_total",
            "mapped_count=node.children_total or 0",
            "tracing::JX_10_one_invocation_tells_what_it_did_and_printed",
        ),
    ),
    *_edits(
        "mr/services/cleaner.py",
        (
            "return keys.facts(w, r), keys.datasets(w, r),",
            "return keys.datasets(w, r),",
            "cleaner::JX_91_a_clean_up_that_is_cut_off_anywhere_is_ended_by_the_next",
        ),
        (
            "if at > now:",
            "if at <= now:",
            "cleaner::JX_91_nothing_has_to_be_remembered_by_a_process_for_a_request_to_go",
        ),
        (
            "is not None:\n                self._put_off",
            "is None:\n                self._put_off",
            "pins::JX_91_a_request_that_is_due_goes_and_a_pinned_one_stays",
        ),
        (
            "single.append(keys.request(w, r))",
            "pass",
            "cli_jobx::JX_90_a_request_is_removed_by_hand_or_only_said_to_be",
        ),
    ),
    *_edits(
        "mr/adapters/handler_header.py",
        (
            "if declared != [parameter]:",
            "if parameter not in declared:",
            "python_processor::JX_16_a_mapper_takes_arguments_and_nothing_else",
        ),
        (
            "if not needed <= given <= needed | optional:",
            "if not needed <= given:",
            "python_processor::JX_14_an_extra_field_names_both_sets",
        ),
        (
            "if not needed <= given <= needed | optional:",
            "if not given <= needed | optional:",
            "python_processor::JX_14_a_missing_field_names_both_sets",
        ),
        (
            "kind not in ARGUMENT_TYPES",
            "not kind",
            "python_processor::JX_15_every_other_builtin_is_refused_as_a_type",
        ),
        (
            "return content.strip()",
            "return content",
            "python_processor::JX_12_the_description_is_the_text_before_the_mark_stripped",
        ),
    ),
    *_edits(
        "mr/adapters/processors/python.py",
        ('in ("", "yaml")', 'in ("", "yaml", "xml")', "python_processor::JX_12_another_parser_is_refused_by_name"),
        ("[2:].strip().lower()", "[2:].strip()", "python_processor::JX_12_json_is_read_after_the_mark"),
        ("has no header", "is wrong", "python_processor::JX_13_a_file_without_a_doc_string_is_refused_by_name"),
    ),
    *_edits(
        "mr/adapters/source_text.py",
        (
            '.replace("\\r\\n", "\\n").replace("\\r", "\\n")',
            "",
            "python_processor::JX_12_carriage_returns_change_nothing_not_even_the_version",
        ),
    ),
    *_edits(
        "mr/adapters/writers/file.py",
        (
            'quote(text, safe="")',
            'quote(text, safe="/")',
            "file_writer::JX_81_no_key_leaves_the_folder_and_none_overwrites_another",
        ),
        (
            'open(folder / name, "xb")',
            'open(folder / name, "wb")',
            "file_writer::JX_81_no_key_leaves_the_folder_and_none_overwrites_another",
        ),
        ('.replace(b" ", b"\\\\u0020")', "", "file_writer::JX_80_a_line_is_key_space_value_whatever_they_are"),
    ),
    *_edits(
        "mr/addresses.py",
        ("ETCD_PORT = 2379", "ETCD_PORT = 4001", "settings::JX_110_the_three_exports_of_jobx_are_enough"),
    ),
    *_edits(
        "mr/cli/logs.py",
        (
            "MR_LOG_FILEPATH: expected",
            "the log: expected",
            "cli::JX_109_a_log_that_cannot_be_written_is_told_with_its_variable",
        ),
    ),
    *_edits(
        "mr/cli/jobx/steps.py",
        ('"combiner": 2', '"combiner": 1', "cli_jobx::JX_38_a_bad_handler_of_a_step_has_its_own_exit_code"),
    ),
    *_edits(
        "mr/cli/jobx/requests.py",
        ("if not simulate:", "if simulate:", "cli_jobx::JX_90_a_request_is_removed_by_hand_or_only_said_to_be"),
    ),
    *_edits(
        "mr/cli/jobx/script.py",
        ("indent=4", "indent=2", "cli_jobx::JX_108_the_quick_start_creates_and_prints_entities"),
    ),
    *_edits(
        "mr/cli/jobx/processes.py",
        (
            "unix:/tmp/mr.gunicorn.sock",
            "127.0.0.1:8080",
            "cli_jobx::JX_111_the_production_script_has_the_socket_and_the_log_of_jobx",
        ),
    ),
    *_edits(
        "mr/http/pages.py",
        (
            "/ui/job/<workflow>/<job>",
            "/ui/jobs/<workflow>/<job>",
            "http_pages::JX_50_the_page_of_a_job_has_a_form_that_posts_it",
        ),
    ),
    *_edits(
        "mr/http/jobs.py",
        (
            'for name in document if name != "arguments"',
            'for name in document if name == ""',
            "http_jobs::JX_7_an_unknown_field_is_named",
        ),
    ),
]
