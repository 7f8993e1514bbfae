"""A program's graph as data: the record, its capture, and how a trusted process rebuilds it."""
