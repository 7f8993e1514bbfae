"""Code that runs in the process of the untrusted program. What it reports must be checked elsewhere."""
