"""How a run goes through its stages: rounds of batches, where the work is done, progress and recovery."""
