"""Durable execution for Python: ordinary generator functions that survive the death of their process."""
