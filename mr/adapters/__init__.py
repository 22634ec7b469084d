"""Third floor, adapters: one vendor each, behind a port. Adapters never import each other.

Vendor exceptions stop here. Read the port, then `stores/sqlite.py`.
"""
