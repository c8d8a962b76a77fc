"""py_test, as the binary itself has it."""

py_test = native.py_test
