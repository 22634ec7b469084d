"""What a failed call to etcd means, by whichever way it was made.

The hard part is what is known after a failure. Only what never left (`Unreached`) or was refused for good can be
asked again without a thought; of anything else (`Trouble`) a write may have been applied, or be applied yet,
whatever etcd says about timeouts and leaders.
"""

from __future__ import annotations

from mr.errors import MrError, NotFound, StoreFull, StoreUnavailable, ValueRefused

# Codes of gRPC, on both ways.
INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 3, 5, 7, 8
FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED = 9, 11, 12, 16


class Unreached(Exception):
    """Nothing was sent."""


class Trouble(Exception):
    """etcd answered that it cannot tell, or something between it and us failed: as good as no answer."""


class NoGrpc(Exception):
    """Who answers does not speak gRPC; nothing was asked of etcd."""


class Refused(Exception):
    """etcd's own words, and their code of gRPC (0 if a proxy spoke); `status` is that of HTTP."""

    def __init__(self, code: int, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status

    @property
    def wants_login(self) -> bool:
        """Whether a login, or another one, may help. etcd notices that before anything is applied."""
        return (
            self.code == UNAUTHENTICATED or "user name is empty" in self.message or "auth store is old" in self.message
        )

    def error(self, path: str) -> MrError | Trouble:
        """The error that this stands for. Whatever is not known to be refused for good is trouble."""
        text = f"etcd refused {path}: {self.message}"
        if self.code == RESOURCE_EXHAUSTED:
            if "space exceeded" in self.message:
                return StoreFull(text, hint="delete, compact and defragment, or raise --quota-backend-bytes")
            if "larger than max" in self.message:
                return ValueRefused(text)
            return StoreUnavailable(text)  # Too many requests are under way; it took this one not at all.
        if self.wants_login or self.code == PERMISSION_DENIED or "authentication failed" in self.message:
            return StoreUnavailable(text, hint="check the user, the password and its roles")
        if self.code == FAILED_PRECONDITION:
            return StoreUnavailable(text)
        if self.code == INVALID_ARGUMENT:
            return ValueRefused(text)
        if self.code in (NOT_FOUND, OUT_OF_RANGE):
            return NotFound(text)
        if self.status == 404:
            return StoreUnavailable(text, hint="is this an etcd v3 with --enable-grpc-gateway?")
        return Trouble(self.message)
