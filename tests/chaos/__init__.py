"""Real processes, really killed, while fingerprint jobs run: `python -m tests.chaos` and `test_kills.py`.

A **trial** starts a job, waits until a seeded share of its leaves is done, strikes (one of the kinds in `kills`),
heals what an operator would heal, and then asks the `checker` whether every leaf is in the result exactly once.
Read `jobs` for what runs, `deployment` for where, `trial` for how it all comes together.
"""
