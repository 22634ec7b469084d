"""Do what the plan says of this leaf, leave a line in the ledger, and yield the token of this path.

The line is one write to a file opened for appending, so lines of several processes never mix.
"""
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///

import os
import signal
import time


def handle(arguments, ctx):
    for path, plan in arguments:
        ledger = os.open(plan["ledger"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(ledger, f"{plan['mark']}/{path} {os.getpid()} {os.urandom(8).hex()}\n".encode())
        finally:
            os.close(ledger)
        time.sleep(plan["seconds"])
        if path == plan["bad_leaf"]:
            if plan["bad_deed"] == "raise":
                raise ValueError(f"the bad leaf of {plan['mark']}")
            if plan["bad_deed"] == "exit":
                os._exit(3)
            if plan["bad_deed"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        yield f"token of {path}", 1
