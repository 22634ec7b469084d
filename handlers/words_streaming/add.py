#!/usr/bin/env python3
# A reducer as it was written for Hadoop Streaming; only this header was added.
#
# /// mr
# source_type = "streaming"
# handler_type = "reducer"
# required_capability = "none"
# ///
import sys

current, total = None, 0
for line in sys.stdin:
    word, count = line.rstrip("\n").split("\t", 1)
    if word != current:
        if current is not None:
            print(f"{current}\t{total}")
        current, total = word, 0
    total += int(count)
if current is not None:
    print(f"{current}\t{total}")
