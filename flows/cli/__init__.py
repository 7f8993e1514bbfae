"""The `synth` command, with one module for each subcommand. A module is imported when its command runs."""
