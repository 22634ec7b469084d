"""A random job, what its handlers do, and what must come out: plain Python, apart from the product.

A node of the job is a mapper's invocation. Mappers may decide differently each time they run (`variants`): then
the children's arguments carry which decision made them, and the leaves' tokens show it, so that a result that
mixes two executions' children is seen at once. Sessions carry the decision, too.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from mr.model.definitions import DefinitionSet, HandlerRef, StepRef

W = "w"


class Node(msgspec.Struct):
    """One invocation of the job. `variants` has the number of children for each way to decide; empty for a leaf."""

    level: int
    variants: list[int] = []
    is_failing: bool = False
    is_slow: bool = False


class Job:
    """A job of random shape: depth 1 to 4, up to 8 children each."""

    def __init__(
        self, rng: random.Random, *, deterministic: bool, may_fail: bool, slow: float,
        pace: tuple[float, ...], depth_max: int,
    ) -> None:  # fmt: skip
        self.rng = rng
        self.depth = min(rng.choice((1, 2, 2, 3, 3, 4)), depth_max)
        self.deterministic = deterministic
        self.nodes: dict[str, Node] = {}
        self.mapper_capability = [rng.choice(("general", "general", "gpu")) for _ in range(self.depth)]
        self.reducer_capability = [rng.choice(("general", "general", "gpu")) for _ in range(self.depth)]
        self.attempts = rng.choice((None, 3))
        self.is_big = rng.random() < 0.2
        self.slow, self.pace = slow, pace
        self._grow("0", 0)
        leaves = [p for p, node in self.nodes.items() if not node.variants]
        self.fails = may_fail and bool(leaves) and rng.random() < 0.25
        if self.fails:
            self.nodes[rng.choice(leaves)].is_failing = True

    def _grow(self, p: str, level: int) -> None:
        rng = self.rng
        is_leaf = level >= self.depth - 1
        budget = 40 - len(self.nodes)
        ways = 1 if self.deterministic else rng.choice((1, 2, 3))
        limit = max(0, min(8 if level < 2 else 3, budget))
        variants = [] if is_leaf else [rng.randint(0, limit) for _ in range(ways)]
        self.nodes[p] = Node(level=level, variants=variants, is_slow=rng.random() < self.slow)
        for child in range(max(variants, default=0)):
            self._grow(f"{p}.{child}", level + 1)

    def definitions(self) -> DefinitionSet:
        """The definition set that a registry would have made."""
        handlers, steps = {}, {}
        for level in range(self.depth):
            mapper, reducer = self.mapper_capability[level], self.reducer_capability[level]
            handlers[f"map{level}"] = HandlerRef(
                version=f"m{level}", handler_type="mapper", capability=mapper, attempts=self.attempts
            )
            handlers[f"reduce{level}"] = HandlerRef(
                version=f"r{level}", handler_type="reducer", capability=reducer, attempts=self.attempts
            )
            steps[f"step{level}"] = StepRef(mapper=f"map{level}", combiner=None, reducer=f"reduce{level}")
        return DefinitionSet(handlers=handlers, steps=steps, jobs={"job": "step0"})

    def expected(self, decided: dict[str, int]) -> dict[str, Any]:
        """The pairs of the result, given which way each mapper decided by its winning manifest."""
        tokens: dict[str, int] = {}
        self._expect("0", [], decided, tokens)
        return tokens

    def _expect(self, p: str, chain: list[int], decided: dict[str, int], tokens: dict[str, int]) -> None:
        node = self.nodes[p]
        tokens[f"reduced {p} {chain}"] = 1
        if not node.variants:
            tokens[f"leaf {p} {chain}"] = 1
            return
        way = decided[p]
        for child in range(node.variants[way % len(node.variants)]):
            self._expect(f"{p}.{child}", [*chain, way], decided, tokens)


def way_of(node: Node, nonce: int) -> int:
    """How an execution decides."""
    return nonce % len(node.variants)
