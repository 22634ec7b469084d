"""Adapters behind one port; see `mr/ports/`."""
