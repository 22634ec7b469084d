"""Fourth floor, services: what the product does, over ports that are handed in.

Plain synchronous code. Imports the ground, the rules and the ports, never an adapter. Read `submission.py`,
then `progress.py`: the life of a request, top to bottom.
"""
