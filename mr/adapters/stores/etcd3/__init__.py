"""Store on etcd v3: `Etcd3Store`, and `Maintenance`, which compacts it."""

from __future__ import annotations

from mr.adapters.stores.etcd3.store import Etcd3Store, EtcdStatus, Maintenance

__all__ = ["Etcd3Store", "EtcdStatus", "Maintenance"]
