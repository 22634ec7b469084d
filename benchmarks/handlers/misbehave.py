"""Do harm, in the way that is asked for; no request with it ends well."""
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# timeout_s = 1
# memory_mb = 300
# ///

import os
import time


def handle(arguments, ctx):
    [(_, way)] = arguments
    if way == "exits":
        os._exit(1)
    elif way == "loops":
        while True:
            pass
    elif way == "eats":
        held = []
        while True:
            held.append(b"x" * 10_000_000)
    elif way == "prints":
        for _ in range(20):
            os.write(1, b"x" * 1_000_000)
    elif way == "forks":
        parent = os.getpid()
        for _ in range(4):
            os.fork()
        if os.getpid() != parent:
            time.sleep(60)
    raise RuntimeError(way)
    yield
