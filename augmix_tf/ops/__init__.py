"""Image operations of AugMix, equal to Pillow in every value.

Inside, an operation takes one packed picture and one parameter (`pixels`) and holds no chance.
`apply_op` is the door for a batch and one operation, `run_chains` for a batch and many chains.
"""

from augmix_tf.ops.chains import OPERATIONS, PAPER_OPERATIONS, apply_op, run_chains

__all__ = ["OPERATIONS", "PAPER_OPERATIONS", "apply_op", "run_chains"]
