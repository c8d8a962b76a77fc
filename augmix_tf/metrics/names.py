"""What the -C and -P benchmarks hold beside what counts in their means."""

from __future__ import annotations

SEVERITIES = (1, 2, 3, 4, 5)
# For validation only.
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
EXTRA_PERTURBATIONS = ("speckle_noise", "gaussian_blur", "spatter", "shear")
# The noises at higher levels.
HARDER_PERTURBATIONS = tuple(
    f"{kind}_noise_{level}" for kind in ("gaussian", "shot", "speckle") for level in (2, 3)
)
# Stands in for frost where the photographs are missing. No benchmark number may contain it.
FROST_SYNTHETIC = "frost_synthetic"
