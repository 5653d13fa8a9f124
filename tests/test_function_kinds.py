"""Trainings of every kind as functions: other libraries, other languages, and a study that is killed and goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import UNDRAWN_COMMAND

import cnn_ablation
from cnn_ablation.runs.run import run
from cnn_ablation.tasks.function import signature

KINDS = {
    "sklearn": """
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

def train(alpha: float = 1e-4, *, seed):
    pixels, labels = load_digits(return_X_y=True)
    found = SGDClassifier(alpha=alpha, random_state=seed, max_iter=5, tol=None).fit(pixels[:500], labels[:500])
    return {"test_accuracy": found.score(pixels[500:900], labels[500:900])}
""",
    "torch": """
import torch

def train(lr: float = 0.1, *, seed, run):
    torch.manual_seed(seed)
    inputs = torch.randn(64, 3)
    targets = inputs @ torch.tensor([1.0, -2.0, 0.5])
    layer = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr)
    for epoch in range(1, 6):
        optimizer.zero_grad()
        loss = (layer(inputs).squeeze(1) - targets).square().mean()
        loss.backward()
        optimizer.step()
        run.report(epoch, train_loss=loss.item())
    return {"train_loss": loss}
""",
    "lightning": """
import lightning
import torch

class Line(lightning.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr, self.layer = lr, torch.nn.Linear(3, 1)

    def training_step(self, batch, index):
        inputs, targets = batch
        return (self.layer(inputs).squeeze(1) - targets).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

def train(lr: float = 0.1, *, seed, run):
    lightning.seed_everything(seed)
    inputs = torch.randn(64, 3)
    data = torch.utils.data.TensorDataset(inputs, inputs @ torch.tensor([1.0, -2.0, 0.5]))
    network = Line(lr)
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, default_root_dir=run.folder)
    trainer.fit(network, torch.utils.data.DataLoader(data, batch_size=16))
    return {"train_loss": trainer.callback_metrics.get("loss", network.training_step(data[:], 0))}
""",
    "awk": """
import subprocess

PROGRAM = 'BEGIN { x = seed; for (i = 0; i < 20; i++) x -= lr * 2 * (x - 3); print (x - 3) ^ 2 }'

def train(lr: float = 0.1, *, seed):
    subprocess.run(["awk", 'BEGIN { print "from another program" }'], check=True)
    done = subprocess.run(["awk", "-v", f"lr={lr}", "-v", f"seed={seed}", PROGRAM], capture_output=True, text=True)
    return {"loss": float(done.stdout)}
""",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("kind_")]:
        sys.modules.pop(name)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]
    for kept in (signature.parameters, signature._schema):
        kept.cache_clear()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:::lightning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_of_any_kind(here: Path, kind: str) -> None:
    if kind == "lightning":
        pytest.importorskip("lightning")
    if kind == "awk" and not shutil.which("awk"):
        pytest.skip("no awk")
    (here / f"kind_{kind}.py").write_text(KINDS[kind])
    config = cnn_ablation.compose(["task=function", f"task.target=kind_{kind}.train", "replicates=2", "threads=1"])
    first, second = run(config, here / "job")
    assert [first.error, second.error] == ["", ""]
    assert first.metrics.keys() == second.metrics.keys()
    assert first.metrics != second.metrics
    again = run(cnn_ablation.compose([*_words(kind), "reuse=false"]), here / "again")
    assert [each.metrics for each in again] == [first.metrics, second.metrics], "the seed decides"
    printed = (here / "job" / "output-seed0.txt").read_text()
    assert ("from another program" in printed) == (kind == "awk")


def _words(kind: str) -> list[str]:
    return ["task=function", f"task.target=kind_{kind}.train", "replicates=2", "threads=1"]


SLOW = """
import time

def train(lr: float = 0.1, width: int = 64, *, seed):
    time.sleep(0.3)
    return {"test_loss": (lr - 0.05) ** 2 + 1 / width + 0.001 * seed * lr, "val_loss": (lr - 0.05) ** 2 + 1 / width}
"""


def test_a_greedy_study_that_is_killed_goes_on_where_it_was(here: Path) -> None:
    (here / "kind_slow.py").write_text(SLOW)
    command = [
        sys.executable, UNDRAWN_COMMAND, "-m", "task=function", "task.target=kind_slow.train", "replicates=2",
        "settings.lr=0.04,0.2", "settings.width=32,128", "hydra.sweeper.design=greedy", "hydra.sweep.dir=study",
    ]  # fmt: skip
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(here.glob("study/*/run-seed*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = len(list(here.glob(".ablation_runs/*/run.json")))
    assert 2 <= before < 10
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = pd.read_csv(here / "study" / "runs.csv")
    assert before <= runs["reused"].sum() < len(runs)
    arms = pd.read_csv(here / "study" / "ablation.csv").set_index("arm")
    assert arms.loc["settings.lr=0.04", "delta"] == pytest.approx(0.01**2 - 0.05**2 - 0.06 * 0.001 * 0.5)
    assert "kept" in arms.loc["settings.lr=0.04", "notes"]
    assert arms.loc["settings.lr=0.2", "metric_mean"] != arms.loc["settings.lr=0.2", "metric_mean"], "dropped: no test"
