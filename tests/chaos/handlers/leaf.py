"""Work a little, leave a line in the ledger, and yield the token of this path.

The line is one write to a file opened for appending, so lines of several processes never mix. It tells of an
execution; the token tells of a result. How long it takes depends on the path and the seed only: a few milliseconds,
and tens of them for one leaf out of twenty.
"""
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///

import os
import random
import time


def handle(arguments, ctx):
    for path, plan in arguments:
        draw = random.Random(f"{plan['seed']} {path}")
        is_slow = draw.random() < 0.05
        time.sleep(plan["slowness"] * (draw.uniform(0.020, 0.060) if is_slow else draw.uniform(0.003, 0.009)))
        ledger = os.open(plan["ledger"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(ledger, f"{path} {os.getpid()} {os.urandom(8).hex()}\n".encode())
        finally:
            os.close(ledger)
        yield f"token of {path}", 1
