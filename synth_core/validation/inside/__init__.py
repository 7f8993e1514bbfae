"""Code that runs in the same process as the untrusted program: what it reports must be checked elsewhere."""
