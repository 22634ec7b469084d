"""Mixed jobs on real processes that are killed at random, for minutes or hours: does every request end as it should?

Run `python -m tests.soak --minutes 60`; `test_soak.py` is the short one.
"""
