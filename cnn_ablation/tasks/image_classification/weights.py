"""A trained network on disk: its weights, and what pictures must look like to be shown to it."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cnn_ablation.common.errors import RecordError, UserError
from cnn_ablation.tasks.image_classification.config import Config
from cnn_ablation.tasks.image_classification.data.images import ImageData
from cnn_ablation.tasks.image_classification.models import build_network
from cnn_ablation.tasks.image_classification.scoring import probabilities_from

_FORMAT = 1


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode on the CPU, and how pixels become its input."""

    network: nn.Module
    output: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    """(channels, height, width)."""
    factor: Tensor
    shift: Tensor
    """input = pixel * factor + shift; float32 (1, channels, 1, 1)."""
    pixels: str = "uint8"
    """What factor and shift are for; `float32` for images in a unit of the user's own."""

    @torch.inference_mode()
    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Class probabilities (N, classes) of uint8 images (N, channels, height, width)."""
        outputs = self.network(torch.tensor(pixels).float().mul_(self.factor).add_(self.shift))
        found: npt.NDArray[np.float32] = probabilities_from(self.output)(outputs).numpy()
        return found


def as_bytes(network: nn.Module, data: ImageData) -> bytes:
    """The content of a weights file: tensors, numbers, strings and lists only."""
    factor, shift = data.normalisation
    buffer = io.BytesIO()
    content = {
        "format": _FORMAT,
        "network": {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()},
        "class_names": list(data.class_names),
        "input_shape": list(data.input_shape),
        "factor": torch.from_numpy(factor),
        "shift": torch.from_numpy(shift),
        "pixels": str(data.train.images.dtype),
    }
    torch.save(content, buffer)
    return buffer.getvalue()


def read(path: Path, config: Config) -> Trained:
    """A network from its weights file; nothing in the file is run as code.

    Args:
        path: written by a run.
        config: of that run.

    Raises:
        RecordError: the file is missing, damaged, or not of this configuration.
    """
    try:
        content = _content(path)
        shape, names = tuple(content["input_shape"]), tuple(content["class_names"])
        network = build_network(config.model, len(names), shape, seed=0)
        _fill(network, content["network"])
        factor, shift = (content[name].view(1, -1, 1, 1) for name in ("factor", "shift"))
    except UserError:
        raise
    except Exception as error:  # a file of any content may fail in any way
        reason = " ".join(str(error).split())[:200]
        raise RecordError(
            f"{path} is missing, damaged or of another network ({reason})\n"
            f"  remedy: train again with keep_weights=true reuse=false"
        ) from error
    return Trained(network.eval(), config.model.output, names, shape, factor, shift, content.get("pixels", "uint8"))


def _content(path: Path) -> dict[str, Any]:
    """What `as_bytes` has put into a file.

    Raises:
        ValueError: the file holds something else; PyTorch's own explanation is a page on how to load it all the same.
        OSError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():  # torch's remarks about odd files; they are refused below
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise ValueError("it is no whole file of weights") from error
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError("it is no file of weights that a run has kept")
    if content["format"] != _FORMAT:
        raise ValueError(f"format {content['format']}, this version reads {_FORMAT}")
    return content


def _fill(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Gives a network its weights.

    Raises:
        ValueError: they are of other layers.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ValueError(f"{name} has the shape {found.get(name)}, the record's network {wanted.get(name)}")
    network.load_state_dict(weights)
