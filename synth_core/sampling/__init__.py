"""Which operators a candidate is asked to contain, and what a further attempt asks.

sample    settings and seed -> specifications
coherent  the sampler that draws operators which fit together
coverage  the sampler that prefers what the folder lacks
repair    what a failed program is sent back with
"""
