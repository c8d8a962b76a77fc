"""Serving: a trained model as a SavedModel and a `.keras` file, checked in a process of its own."""
