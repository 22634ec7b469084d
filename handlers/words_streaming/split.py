#!/usr/bin/env python3
# A mapper as it was written for Hadoop Streaming; only this header was added.
#
# /// mr
# source_type = "streaming"
# handler_type = "mapper"
# required_capability = "none"
# ///
import re
import sys

for line in sys.stdin:
    for word in re.findall(r"[^\W\d_]+", line.lower()):
        print(f"{word}\t1")
