"""Adapters of the notifier: mail, HTTP."""
