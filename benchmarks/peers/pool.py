"""The lower bound: squares in a bare multiprocessing.Pool, nothing stored, nothing served.

python -m benchmarks.peers.pool ITEMS RUNS prints the seconds of each run as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from multiprocessing import Pool, cpu_count

CHUNK = 100


def square(number: int) -> int:
    return number * number


def main(items: int, runs: int) -> None:
    seconds = []
    expected = sum(number * number for number in range(items))
    with Pool(cpu_count()) as pool:
        for _ in range(runs + 1):
            begun = time.perf_counter()
            found = sum(pool.imap_unordered(square, range(items), chunksize=CHUNK))
            seconds.append(time.perf_counter() - begun)
            if found != expected:
                sys.exit("the pool's sum is wrong")
    print(json.dumps(seconds[1:]))  # the first one warmed the pool up


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
