"""How a process is confined: system calls, files, namespaces, limits, and the tiers that follow from them."""

from typing import Final

HARNESS_FAILED: Final = 70
"""Exit code of a process in which our own code raised, not the program."""
