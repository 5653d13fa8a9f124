"""What of the installation can change what a run computes."""

from __future__ import annotations

# Everything else (plans, tables, reports) may change without retraining.
CODE = (
    "analysis/metrics.py",
    "common/streams.py",
    *(
        f"tasks/image_classification/{name}"
        for name in (
            "activations.py", "averaging.py", "checkpoints.py", "compiled.py", "data", "devices.py", "diagnoses.py",
            "engine", "generators.py", "lengths.py", "losses.py", "models", "optimizers.py", "schedules.py",
            "scoring.py", "seeds.py", "training.py", "updates.py",
        )
    ),
)  # fmt: skip
LIBRARIES = ("numpy", "pillow", "scikit-learn", "torch", "torchvision")
