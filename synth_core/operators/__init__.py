"""The catalog of operators: strings only, no torch."""
