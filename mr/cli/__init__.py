"""Sixth floor, the commands: parse, call one service method, render. Start with `main.py`."""
