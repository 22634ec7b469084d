"""The real services under a seeded scheduler that crashes, stops, loses, repeats and lies. Start with `run.py`."""
