"""Cut the files below a folder into byte ranges, one child for each.

Arguments: `root`, a folder that every worker sees; `pattern`, which files (`**/*.py`); `skip`, folders of this name
are left out; `chunk_kb`, how big a range.
"""
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///

from pathlib import Path


def handle(arguments, ctx):
    given = {"pattern": "**/*", "skip": None, "chunk_kb": 512, **dict(arguments)}
    chunk = int(given["chunk_kb"]) * 1024
    if chunk <= 0:
        raise ValueError(f"expected chunk_kb to be a positive number, got: {given['chunk_kb']}")
    root = Path(given["root"])
    if not root.is_dir():
        raise ValueError(f"expected root to be a folder, got: {root}")

    ctx.map_to("count_range")
    for path in sorted(root.glob(given["pattern"])):
        if path.is_file() and given["skip"] not in path.parts:
            size = path.stat().st_size
            for start in range(0, size, chunk):
                yield str(path), [start, min(start + chunk, size)]
