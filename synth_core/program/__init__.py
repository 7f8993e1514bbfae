"""Facts that the text of a program shows, with no torch: syntax, class names, constants.

syntax     Python's parser
naming     how programs and their files are named
renaming   which class is the program, and its new name
constants  the module-level sizes in a text
"""
