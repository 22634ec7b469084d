"""Pictures by Graphviz: its program `dot`, in a process of its own, which is killed when it takes too long.

A library inside of our process would be quicker by some milliseconds, and a graph that it cannot cope with would
take the front end with it.
"""

from __future__ import annotations

import shutil
import subprocess

from mr.errors import PictureUnavailable
from mr.ports.renderer import Format, Renderer

PROGRAM = "dot"
PATIENCE_S = 15.0
"""A graph that is folded takes some hundred milliseconds."""
SAYS_MAX = 500
INSTALL = "install Graphviz: apt-get install graphviz, or scripts/backends"


class GraphvizRenderer(Renderer):
    """Runs `dot` from the PATH, once for each picture."""

    def __init__(self, program: str = PROGRAM, patience_s: float = PATIENCE_S) -> None:
        self._program, self._patience_s = program, patience_s

    def render(self, dot: str, format: Format) -> bytes:
        """See the port."""
        path = shutil.which(self._program)
        if path is None:
            raise PictureUnavailable(f"there is no program {self._program} here, which draws pictures", hint=INSTALL)
        try:
            done = subprocess.run(
                [path, f"-T{format}"],
                input=dot.encode(),
                capture_output=True,
                timeout=self._patience_s,
                check=True,
            )
        except subprocess.TimeoutExpired as error:
            raise PictureUnavailable(
                f"{self._program} took longer than {self._patience_s:g} s to draw this graph",
                hint="mr graph --format dot gives its source",
            ) from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()[:SAYS_MAX]
            raise PictureUnavailable(
                f"{self._program} ended with {error.returncode}: {said}", hint="see whether it works: dot -V"
            ) from error
        except OSError as error:
            raise PictureUnavailable(f"{path} cannot be run: {error.strerror}", hint=INSTALL) from error
        return done.stdout
