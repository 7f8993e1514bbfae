"""Trusted, long-lived processes that prove what a captured graph is. No program's text ever runs here."""
