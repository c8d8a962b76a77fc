"""Where pictures come from: built-in, on disk and benchmark sets, and the input pipeline."""
