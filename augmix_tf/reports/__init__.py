"""Reports: what a run folder's own files say, as text, plots and pictures for people."""
