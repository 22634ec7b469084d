"""Renderer: pictures from their descriptions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

Format = Literal["svg", "png"]


class Renderer(ABC):
    """Draws graphs. Called from several threads at once."""

    @abstractmethod
    def render(self, dot: str, format: Format) -> bytes:
        """The picture of a graph that is described in DOT.

        Guarantee: it ends by itself, within half a minute, whatever it was given.
        Raises: PictureUnavailable where what draws is not installed, fails, or takes too long.
        """
