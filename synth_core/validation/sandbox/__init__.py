"""How an untrusted process is confined: system calls, files, namespaces, limits, and the tiers they make."""
