"""The engine: the only part with hands. See `loop` for the order in which things happen, which is the crash story."""
