"""One training run: learning rates, optimizer, and the steps that use them."""
