"""Evaluation: predicts each set once and computes all metrics from the logits."""
