"""Chooses the operators of each candidate, and what a further attempt asks for.

sample    settings and seed -> specifications
coherent  the sampler that draws operators which fit together
coverage  the sampler that prefers operators and pairs missing from the folder
repair    the prompt that sends a failed program back to the LLM
"""
