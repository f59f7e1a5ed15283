"""The stores: memory, LMDB, and the ordered key-value layout they share."""
