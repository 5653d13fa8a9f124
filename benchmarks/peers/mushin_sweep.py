"""mushin sweeps the plain script's training over seeds. Same arguments and output as plain.py."""

from __future__ import annotations

import tempfile
from pathlib import Path

import plain
from mushin import MultiRunMetricsWorkflow, multirun

told = plain.arguments().parse_args()


class Seeds(MultiRunMetricsWorkflow):
    """One job per seed, in Hydra's basic launcher."""

    @staticmethod
    def task(seed: int) -> dict[str, float]:
        return {"accuracy": plain.train(told, seed)}


if __name__ == "__main__":
    told.data = told.data.absolute()
    sweep = Seeds()
    with tempfile.TemporaryDirectory() as folder:
        sweep.run(seed=multirun(told.seeds), working_dir=str(Path(folder) / "sweep"))
        scores = sweep.to_xarray()["accuracy"]
        for seed in told.seeds:
            plain.report(seed, float(scores.sel(seed=seed)))
