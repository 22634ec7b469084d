"""What mr is compared with, in a virtual environment of its own. `install` makes it, `contestants` starts the peers.

The other modules run inside that environment, not in mr's: `front`, `celery_…`, `dramatiq_…` and `pool`.
"""
