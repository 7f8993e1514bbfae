"""What must not be kept: programs like a benchmark's, and programs like those a folder already holds."""

from synth_core.filtering.filters import DEFAULT_FILTERS, FILTERS, Filter, FilterRule, held

__all__ = ["DEFAULT_FILTERS", "FILTERS", "Filter", "FilterRule", "held"]
