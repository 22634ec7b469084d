"""The key that seals messages: made once, by whoever starts first, and kept in the store."""

from __future__ import annotations

import secrets

from mr.errors import CorruptEntry
from mr.ports.store import Absent, Put, Store, Transaction
from mr.rules import keys


def message_key(store: Store) -> bytes:
    """The key for `model.message.seal`: 32 bytes, the same for every process on this store."""
    fresh = secrets.token_hex(32).encode()
    outcome = store.commit(
        Transaction(
            conditions=[Absent(keys.MESSAGE_KEY)],
            operations=[Put(keys.MESSAGE_KEY, fresh)],
            reads=[keys.MESSAGE_KEY],
        )
    )
    entry = outcome.entries[keys.MESSAGE_KEY]
    try:
        return bytes.fromhex((entry.value if entry is not None else fresh).decode())
    except ValueError as error:
        raise CorruptEntry(f"{keys.MESSAGE_KEY} is not a key in hex") from error
