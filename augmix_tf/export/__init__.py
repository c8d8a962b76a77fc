"""Exports of a classifier: a SavedModel for servers, a `.keras` file, ONNX and LiteRT."""
