"""Second floor, interfaces: what mr asks of a store, a broker and the rest, in our words.

Each docstring is a contract that a suite under `tests/contract/` holds against every adapter. Imports the
floors below. Read `store.py` first.
"""
