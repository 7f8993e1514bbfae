"""The process that reads raw evidence after the program's process is dead, and decides."""
