"""Pictures: the graph of a request, as it is now, for those who look at one."""

from __future__ import annotations

from mr.ports.renderer import Format, Renderer
from mr.services.dot import dot
from mr.services.graph import Graph, graph
from mr.services.tracing import Tracing


class Pictures:
    """Draws requests. Safe to call from several threads."""

    def __init__(self, tracing: Tracing, renderer: Renderer) -> None:
        self._tracing, self._renderer = tracing, renderer

    def graph(self, w: str, r: str, *, everything: bool = False) -> Graph:
        """The graph of a request, folded unless everything is asked for.

        Raises: RequestNotFound; StoreUnavailable.
        """
        return graph(self._tracing.tree(w, r), everything=everything)

    def draw(self, w: str, r: str, format: Format, *, everything: bool = False) -> bytes:
        """A picture of it.

        Raises: RequestNotFound; PictureUnavailable; StoreUnavailable.
        """
        return self._renderer.render(dot(self.graph(w, r, everything=everything)), format)
