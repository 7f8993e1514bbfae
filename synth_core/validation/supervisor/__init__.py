"""Processes that start, limit and end the confined children. No program runs here."""
