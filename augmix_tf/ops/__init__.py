"""Image operations of AugMix, with Pillow's exact values.

`apply_op` applies one operation to a batch, `run_chains` many chains of operations. An operation
itself takes one packed image (see `packed`) and one parameter, and is deterministic.
"""

from augmix_tf.ops.chains import apply_drawn, apply_op, run_chains
from augmix_tf.ops.registry import OPERATIONS, PAPER_OPERATIONS, REGISTRY

__all__ = ["OPERATIONS", "PAPER_OPERATIONS", "REGISTRY", "apply_drawn", "apply_op", "run_chains"]
