"""How a process is confined: system calls, files, namespaces, limits, and the tiers that follow from them."""
