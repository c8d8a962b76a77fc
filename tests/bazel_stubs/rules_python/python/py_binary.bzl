"""py_binary, as the binary itself has it."""

py_binary = native.py_binary
