"""Store on etcd's v2 API through python-etcd, for sites that still run it; `store` is where to begin.

python-etcd is an extra, so it may be missing. Whoever asks for this adapter then is told what to install.
"""

from mr.errors import ConfigError

try:
    import etcd  # noqa: F401 (only to see whether it is there)
except ImportError as error:
    raise ConfigError(
        [f"MR_STORE: etcd2 needs python-etcd, which cannot be imported ({error}): pip install 'mr-jobs[etcd2]'"]
    ) from error

from mr.adapters.stores.etcd2.store import Etcd2Store

__all__ = ["Etcd2Store"]
