"""Commands, events, values and the pure interpreter; the store port; the engine."""
