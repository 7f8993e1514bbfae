"""Reads and edits the text of a program without torch: syntax, class names, constants.

syntax     Python's parser
naming     how programs and their files are named
renaming   which class is the program, and renaming it
constants  the module-level sizes in a text
"""
