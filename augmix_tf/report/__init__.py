"""Reports and comparisons of runs, from the files of their directories: text, tables and plots."""
