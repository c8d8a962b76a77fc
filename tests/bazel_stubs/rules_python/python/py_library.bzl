"""py_library, as the binary itself has it."""

py_library = native.py_library
