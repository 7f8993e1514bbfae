"""Rejects programs similar to a benchmark's problems, and programs similar to those already in the folder."""

from synth_core.filtering.filters import FILTERS, Filter, FilterRule, refuse_held, resolve_filters

__all__ = ["FILTERS", "Filter", "FilterRule", "refuse_held", "resolve_filters"]
