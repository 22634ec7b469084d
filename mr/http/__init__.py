"""Sixth floor, the front end: parse, call one service method, render. Start with `app.py`."""
