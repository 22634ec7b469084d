"""Count the words that start in one byte range of a file.

A word is a run of ASCII letters, in lower case. One that crosses a border belongs to the range in which it starts,
so the ranges of a file together count every word once, wherever they are cut.
"""
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///

import re
from collections import Counter

LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORD = re.compile(rb"[a-z]+")
BLOCK = 4096


def handle(arguments, ctx):
    for path, (start, end) in arguments:
        words = WORD.findall(text_of(path, start, end).lower())
        for word, count in Counter(words).items():
            yield word.decode("ascii"), count


def text_of(path, start, end):
    """The bytes of the range without the end of a word that began before it, with the end of its own last word."""
    with open(path, "rb") as file:
        file.seek(max(start - 1, 0))
        before = file.read(1) if start else b""
        text = file.read(end - start)
        if before.isalpha():
            text = text.lstrip(LETTERS)
        pieces = [text]
        while pieces[-1][-1:].isalpha():
            block = file.read(BLOCK)
            rest = block.lstrip(LETTERS)
            pieces.append(block[: len(block) - len(rest)])
            if rest:
                break
        return b"".join(pieces)
