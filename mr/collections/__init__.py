"""Collections: a queue and a tree made of keys, over any store.

The floor between the ports and the services: it knows how many keys make one thing, and nothing of requests. It imports
ports and what is below. Read `queue.py` first.

Handlers have no store, and so no collections: what they keep goes through their session.
"""
