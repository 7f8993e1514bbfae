"""What must not be kept: programs like a benchmark's, and programs like those a folder already holds."""

from synth_core.filtering.filters import FILTER_NAMES, FILTERS, Filter, FilterRule, held

__all__ = ["FILTERS", "FILTER_NAMES", "Filter", "FilterRule", "held"]
