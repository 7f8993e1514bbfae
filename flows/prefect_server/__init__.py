"""Everything about the Prefect server: a private one, `synth up`, connections, locks and dead runs."""
