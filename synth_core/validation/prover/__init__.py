"""Trusted, long-lived processes that prove captured graphs. No program's text ever runs here."""
