"""Empty: nothing here compiles C++."""
