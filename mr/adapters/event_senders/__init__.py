"""Adapters of the sender of events: HTTP."""
