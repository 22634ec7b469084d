"""Every script and variable that JobX had: it is here, or the page for those who come from it says what is instead."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from mr import environment
from mr.cli import jobx

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "coming_from_jobx.rst").read_text()
INSTALLED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

SCRIPTS = """
mr_kv_workflow_create mr_kv_workflow_get mr_kv_workflow_delete
mr_kv_job_create mr_kv_job_get mr_kv_job_delete mr_kv_job_list
mr_kv_step_create mr_kv_step_get mr_kv_step_delete mr_kv_step_list mr_kv_step_set_handler mr_kv_step_update_handlers
mr_kv_handler_create mr_kv_handler_get mr_kv_handler_delete mr_kv_handler_list mr_kv_handler_store
mr_kv_request_get mr_kv_request_cleanup mr_kv_request_create mr_kv_invocation_create mr_kv_invocation_get
mr_get_invocation_flat_list mr_get_invocation_graph mr_get_request_sessions mr_draw_invocation_graph
mr_http_notification_listen mr_start_gunicorn_dev mr_start_gunicorn_prod mr_kv_t_mapped_steps_*
""".split()
LEFT_OUT = {"mr_kv_request_create", "mr_kv_invocation_create", "mr_kv_t_mapped_steps_*"}

VARIABLES = """
DEBUG MR_ETCD_HOST MR_ETCD_PORT MR_ETCD_IS_SSL MR_NSQD_HOSTS MR_CHANNEL MR_NSQ_MAX_IN_FLIGHT MR_WORKFLOW_NAMES
MR_SYSTEM_CAPABILITIES MR_CONSUME MR_MULTITHREADED MR_USE_FAKE_QUEUE MR_FAKE_QUEUE_SPOOL_PATH MR_FAKE_QUEUE_SPOOL_WRITE
MR_HANDLER_UPDATE_CHECK_INTERVAL_S MR_WORKFLOW_SCOPE_FACTORY_FQ_CLASS MR_FS_FACTORY_FQ_CLASS MR_FS_TAHOE_DIR_URI
MR_FS_TAHOE_WEBAPI_URL_PREFIX MR_DO_CLEANUP_REQUESTS MR_CLEANUP_MANDATORY_QUIET_PERIOD_S MR_REMOTE_ADDR_HEADER
MR_CACHE_TYPE MR_CACHE_REDIS_HOST MR_CACHE_REDIS_PORT MR_KV_CACHE MR_RESULT_WRITER_FQ_CLASS
MR_RESULT_FILE_WRITER_OUTPUT_PATH MR_RESULT_FILE_WRITER_WRITE_AS_DIRECTORY MR_RESULT_EMAIL_WRITER_TO_LIST
MR_RESULT_EMAIL_WRITER_SUBJECT_TEMPLATE MR_RESULT_EMAIL_WRITER_TEXT_BODY_TEMPLATE MR_RESULT_HTTP_WRITER_SERVER_URL
MR_EMAIL_SMTP_HOSTNAME MR_EMAIL_SMTP_FROM_EMAIL MR_LOG_EMAIL_HOOK MR_LOG_EMAIL_HOSTNAME MR_LOG_EMAIL_HOST_PORT
MR_LOG_EMAIL_FROM MR_LOG_EMAIL_TO MR_LOG_EMAIL_SUBJECT MR_LOG_EMAIL_USERNAME MR_LOG_EMAIL_PASSWORD
MR_LOG_EMAIL_SECURE_KEY_FILEPATH MR_LOG_EMAIL_SECURE_CERTIFICATE_FILEPATH MR_HANDLER_EMAIL_LOG_LEVEL MR_LOG_HTTP_HOOK
MR_LOG_HTTP_HOSTNAME MR_LOG_HTTP_PORT MR_LOG_HTTP_PATH MR_LOG_HTTP_VERB MR_HANDLER_HTTP_LOG_LEVEL MR_DO_STREAM_LOG
MR_LOG_FILEPATH MR_HANDLER_DEBUG MR_HANDLER_LOG_LEVEL
""".split()


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_of_jobx_is_here_or_named_as_left_out(name: str) -> None:
    row = re.search(rf"^``{re.escape(name)}`` +(\S.*)$", PAGE, re.MULTILINE)
    assert row, "the page has no row for it"
    assert (row.start() > PAGE.index("\nLeft out")) == (name in LEFT_OUT)
    if name in LEFT_OUT:
        assert name not in INSTALLED
    else:
        assert INSTALLED[name] == f"mr.cli.jobx:{name}"
        assert name in jobx.COMMANDS
        assert callable(getattr(jobx, name))


def test_no_script_is_installed_that_jobx_did_not_have() -> None:
    assert set(INSTALLED) - {"mr"} <= set(SCRIPTS)
    assert set(jobx.COMMANDS) == set(INSTALLED) - {"mr"}


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_of_jobx_is_known_and_explained(name: str) -> None:
    row = re.search(rf"^``{name}`` +(\S.*)$", PAGE, re.MULTILINE)
    assert row, "the page has no row for it"
    is_ignored = environment.IGNORED.fullmatch(name) is not None
    assert is_ignored == row[1].startswith("ignored")
    known = {variable.name for variable in environment.VARIABLES}
    known |= {*environment.JOINED, *environment.CLUSTER, *environment.CLUSTER_DETAILS, *environment.FILES}
    assert is_ignored or name in known
