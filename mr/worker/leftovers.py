"""Folders of executors, and what is left of those whose supervisor was killed.

A supervisor that is killed cannot remove the folders of its executors; the next one on the machine does. It must not
take one that is in use. A process id in the name would not tell: it may belong to somebody else by now, or to another
container that shares the disk. So the owner keeps a folder locked, and the kernel lets go of the lock when the owner
dies, however it dies: a folder whose lock can be taken has no owner.

The hard part is the moment between making a folder and locking it. It gets the name by which it is looked for only
after it is locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from pathlib import Path

from mr.services.isolation import LEAF_PREFIX, Cgroup
from mr.worker.family import kill_marked

_log = logging.getLogger(__name__)

PREFIX = LEAF_PREFIX
"""Folder and leaf of an executor have the same name."""
_NEW_PREFIX = "mr-new-executor-"


class Folder:
    """A new empty folder that counts as in use until `remove`, or until this process ends. Raises: OSError."""

    def __init__(self) -> None:
        new = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX))
        self._lock = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = new.rename(new.with_name(PREFIX + new.name.removeprefix(_NEW_PREFIX)))

    def remove(self) -> None:
        """Remove it with all that is in it. Twice is harmless."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def remove_leftovers(cgroup: Cgroup) -> int:
    """Remove the folders in the directory for temporary files that have no owner any more; how many there were.

    What was started for such an executor and still runs is killed, and its leaf removed.
    """
    removed = 0
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # What cannot be opened or locked is in use, somebody else's, or just removed by another supervisor.
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    kill_marked(str(path))
                    cgroup.remove(path.name)
                    shutil.rmtree(path, ignore_errors=True)
                    removed += 1
            finally:
                os.close(lock)
    if removed:
        _log.info("removed %d folders of executors whose supervisor was killed", removed)
    return removed
