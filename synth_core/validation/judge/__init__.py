"""One function for each check: from what a prover measured to a decision. They run in the prover."""
