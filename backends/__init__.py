"""The stores: memory, LMDB, and the ordered key-value layout they share.

Only the port stands here, so that naming it imports no driver; `open_store` loads the one its URL names.
"""

from dalsegno.core.store import Backend, open_store

__all__ = ["Backend", "open_store"]
