"""The constructive synthesizer. Its programs are valid, because it runs each line when it writes it.

It imports torch, so it runs in a child process (`python -m synth_core.synthesis`). Its client is
`synth_core.providers.constructive`. No other part of synth_core imports it.

    arrange   the order of the operators
    writers   how each operator is written: one table
    draft     the program so far, run line by line, with undo
    sharing   weights that are used twice
    glue      lines that convert a value to another kind, or join two values
    soundness, proof   checks on values, and on the finished program
    render, plan       the text of the file, and its description in words
    build     puts all of this together
"""
