"""Sixth floor, the worker: a supervisor that never runs user code, and its executors. Start with `supervisor.py`."""
