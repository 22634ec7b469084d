"""Collections: a queue and a tree made of keys, over any store.

The floor between the ports and the services: it knows how many keys make one thing, and nothing of requests. It imports
ports and what is below. Read `queue.py` and `tree.py` first: one writer, who numbers or names what he writes. Then
`shared_queue.py` and `shared_tree.py`: many who write at once, any of whom may be repeated, as handlers are.
"""
