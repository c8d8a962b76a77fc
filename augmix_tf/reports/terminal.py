"""What a person reads at the end of a run."""

from __future__ import annotations

from pathlib import Path

from augmix_tf.reports import run_files


def results_table(folder: Path) -> str:
    """Returns the results of a run, what lies where, and what to try next, as an aligned table.

    Args:
        folder: of a run that was evaluated.

    Raises:
        CommandError, RunError: the folder holds no run, or damaged files.
    """
    clean = run_files.read(folder).results["clean"]
    rows = [
        ("clean error", f"{100 * clean['error']:.2f} %"),
        ("calibration error (RMS)", f"{100 * clean['rms_calibration_error']:.2f} %"),
        ("Brier score", f"{clean['brier']:.3f}"),
        ("test images", str(clean["images"])),
        ("report, plots", str(folder / "report.md")),
        ("Keras model", str(folder / "model.keras")),
        ("TensorFlow Serving", str(folder / "export")),
        ("dashboard", f"tensorboard --logdir {folder / 'logs'}"),
        ("see the views", "python main.py --mode=views"),
        ("real pictures", "python main.py --dataset=cifar10 --model=wrn"),
    ]
    return "\n" + "\n".join(f"  {name:<24} {value}" for name, value in rows)
