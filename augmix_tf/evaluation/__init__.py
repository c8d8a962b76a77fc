"""Evaluation: a set is predicted once, everything is computed from the logits."""
