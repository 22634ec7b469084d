"""Ten thousand clients that wait at one front end: `python -m tests.load`, and `test_load.py` for a thousand.

They post while no worker is there. Then one comes, and each client has to get its own answer, or be told to come back
and get it then. Meanwhile the front end still answers others, and its memory is measured.
"""
