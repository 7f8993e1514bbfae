"""The processes that start, limit and end children and provers. No program runs here."""
