"""Ground floor, the nouns: frozen structs, one noun per file.

They import the standard library, msgspec and the other files of the ground floor, and never save themselves.
Read `request.py` and `invocation.py` first.
"""
