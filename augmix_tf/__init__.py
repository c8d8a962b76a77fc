"""AugMix (Hendrycks et al., ICLR 2020) for TensorFlow and Keras."""

__version__ = "0.1.0"
