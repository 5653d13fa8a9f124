"""The plain script's training in Lightning, as in lightning-hydra-template: a module, a data module, a trainer.

Same arguments and output as plain.py.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import plain
import torch
from lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

warnings.filterwarnings("ignore")  # advice on workers, which the benchmark varies itself
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
logging.getLogger("lightning.fabric").setLevel(logging.ERROR)


class Classifier(LightningModule):
    """Cross-entropy and top-1 accuracy."""

    def __init__(self, filters: Sequence[int]):
        super().__init__()
        self.network = plain.network(filters)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, labels = batch
        loss = F.cross_entropy(self.network(inputs), labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._score("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._score("test", batch)

    def _score(self, part: str, batch: tuple[Tensor, Tensor]) -> None:
        inputs, labels = batch
        correct = (self.network(inputs).argmax(1) == labels).float().mean()
        self.log(f"{part}/acc", correct, on_step=False, on_epoch=True, batch_size=len(labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Data(LightningDataModule):
    """The plain script's loaders."""

    def __init__(self, path: Path, workers: int):
        super().__init__()
        self.loaders = plain.loaders(path, workers)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        return self.loaders["train"]

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        return self.loaders["val"]

    def test_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        return self.loaders["test"]


if __name__ == "__main__":
    told = plain.arguments().parse_args()
    for seed in told.seeds:
        seed_everything(seed, verbose=False)
        trainer = Trainer(
            max_epochs=told.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        data = Data(told.data, told.workers)
        model = Classifier(told.filters)
        trainer.fit(model, datamodule=data)
        [scores] = trainer.test(model, datamodule=data, verbose=False)
        plain.report(seed, scores["test/acc"])
