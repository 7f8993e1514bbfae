"""The `synth` command: one module for each subcommand. Modules are imported when their command runs."""
