"""What a user can set about a training function of her own: where it is, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cnn_ablation.config import WHAT_IS_TRAINED, StudyConfig, TaskConfig, group_name, setting

GIVEN_LATER = "???"
"""What stands for a value that must be given; Hydra's own sign."""


@dataclass
class Function(TaskConfig):
    """`target` names a function of a module: `my_train.train` is `train` in my_train.py of the working directory."""

    name: str = group_name("function", role=WHAT_IS_TRAINED)
    target: str = setting(
        GIVEN_LATER, doc="MODULE.FUNCTION, the module from the working directory or installed", role=WHAT_IS_TRAINED
    )


@dataclass
class FunctionConfig(StudyConfig):
    """One configuration of a function: `settings` are its keyword arguments, by its own signature."""

    task: TaskConfig = field(default_factory=Function, kw_only=True)
    settings: Any = field(
        default_factory=dict, metadata={"doc": "its keyword arguments: their defaults, with their types as annotated"}
    )
