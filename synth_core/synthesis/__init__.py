"""The constructive synthesizer: programs that are valid because every line ran while it was written.

It imports torch, so it lives in a child process (`python -m synth_core.synthesis`); its client is
`synth_core.providers.constructive`. Nothing else of synth_core imports it.

    arrange   which operator comes after which
    writers   how each operator is written: one table
    draft     the program so far, run line by line; undo
    sharing   weights used twice
    glue      lines that carry a value to another kind, or join two
    soundness, proof   what is worth keeping
    render, plan       the file's text, and the same in words
    build     all of it together
"""
