"""JobX's commands: the same names, arguments and output, on the same services as `mr`.

One function for each console script, one file for each noun; `script.py` has what they share.
`docs/coming_from_jobx.rst` lists all of JobX's scripts, also those that are left out.
"""

from mr.cli.jobx.handlers import (
    mr_kv_handler_create,
    mr_kv_handler_delete,
    mr_kv_handler_get,
    mr_kv_handler_list,
    mr_kv_handler_store,
)
from mr.cli.jobx.jobs import mr_kv_job_create, mr_kv_job_delete, mr_kv_job_get, mr_kv_job_list
from mr.cli.jobx.notifications import mr_http_notification_listen
from mr.cli.jobx.processes import mr_start_gunicorn_dev, mr_start_gunicorn_prod
from mr.cli.jobx.requests import (
    mr_draw_invocation_graph,
    mr_get_invocation_flat_list,
    mr_get_invocation_graph,
    mr_get_request_sessions,
    mr_kv_invocation_get,
    mr_kv_request_cleanup,
    mr_kv_request_get,
)
from mr.cli.jobx.script import COMMANDS
from mr.cli.jobx.steps import (
    mr_kv_step_create,
    mr_kv_step_delete,
    mr_kv_step_get,
    mr_kv_step_list,
    mr_kv_step_set_handler,
    mr_kv_step_update_handlers,
)
from mr.cli.jobx.workflows import mr_kv_workflow_create, mr_kv_workflow_delete, mr_kv_workflow_get

__all__ = [
    "COMMANDS",
    "mr_draw_invocation_graph",
    "mr_get_invocation_flat_list",
    "mr_get_invocation_graph",
    "mr_get_request_sessions",
    "mr_http_notification_listen",
    "mr_kv_handler_create",
    "mr_kv_handler_delete",
    "mr_kv_handler_get",
    "mr_kv_handler_list",
    "mr_kv_handler_store",
    "mr_kv_invocation_get",
    "mr_kv_job_create",
    "mr_kv_job_delete",
    "mr_kv_job_get",
    "mr_kv_job_list",
    "mr_kv_request_cleanup",
    "mr_kv_request_get",
    "mr_kv_step_create",
    "mr_kv_step_delete",
    "mr_kv_step_get",
    "mr_kv_step_list",
    "mr_kv_step_set_handler",
    "mr_kv_step_update_handlers",
    "mr_kv_workflow_create",
    "mr_kv_workflow_delete",
    "mr_kv_workflow_get",
    "mr_start_gunicorn_dev",
    "mr_start_gunicorn_prod",
]
