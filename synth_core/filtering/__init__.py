"""What must not be kept: programs like a benchmark's, and programs like those a folder already holds."""

from synth_core.filtering.filters import FILTERS, Filter, FilterRule, refuse_held, resolve_filters

__all__ = ["FILTERS", "Filter", "FilterRule", "refuse_held", "resolve_filters"]
