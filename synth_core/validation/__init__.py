"""Validation: the text of a program in, verdicts out. The program never runs in the process that asks.

    public       `validate`, `Validator`: programs from anywhere
    engine       candidates in, candidates with verdicts out; keeps the supervisors, caches verdicts
    reading      what the text alone tells, in a process with limits; gate: whether the text is refused
    checks       every check by name; contract: every downstream rule by name
    child, life  the client of a supervisor process; ends: how a process ended, as a verdict
    supervisor/  starts, limits and ends the confined processes (sandbox/); runs no program
    inside/      the child: runs the text, captures its graph, writes evidence (evidence)
    prover/      rebuilds the graph and measures it; runs no text
    judge/       one function for each check; decides from what a prover measured (tolerance)

Import modules by name: children must not load what only the engine needs.
"""
