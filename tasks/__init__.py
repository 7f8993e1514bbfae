"""One thin Prefect task per stage: its options, its cache policy and one call into `synth_core`."""
