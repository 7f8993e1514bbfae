"""Validation: a program's text in, verdicts out; nothing of the program ever runs in the process that asks.

    public      `validate`, `Validator`: programs from anywhere
    engine      candidates in, candidates with verdicts out; asks the gate, keeps the zygote, caches verdicts
    checks      every check by name; contract: every downstream rule by name
    gate        what the text alone shows
    zygote      forks one confined process a program (scheduler, sandbox/, builds, units, kernels)
    probe       runs in there, writes raw evidence (loading, capture, disturb, evidence)
    judge       reads it once that process is dead, and decides (proofs, tolerance, degeneracy, failures)

Modules are imported by name: the children must not load what only the engine needs.
"""
