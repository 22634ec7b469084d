"""First floor, pure decisions: what happens next, as a function of values.

No I/O, no clock, no randomness, no logging. Imports the ground floor. Read `fan_out.py`, then `fan_in.py`.
"""
