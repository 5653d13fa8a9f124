"""Which GPU computes is no level of a knob: the arms of a study share what its baseline names."""

from __future__ import annotations

from cnn_ablation.common.device_names import place_of
from cnn_ablation.common.errors import ConfigError, Problem
from cnn_ablation.config import StudyConfig
from cnn_ablation.runs.task import task_of


def check_gpu(config: StudyConfig, baseline: StudyConfig, *, arm: str | None) -> None:
    """Refuses an arm on another GPU than its baseline's.

    Raises:
        ConfigError: so it is; names the arm.
    """
    is_other = place_of(config.device) != place_of(baseline.device)
    if is_other and {task_of(each).device(each) for each in (config, baseline)} == {"cuda"}:
        allowed = f"{baseline.device}, as of the baseline: all arms have the same GPUs"
        remedy = "a study for each GPU; or CUDA_VISIBLE_DEVICES=0,1 with device=cuda, which shares the arms out"
        raise ConfigError([Problem("device", config.device, allowed, remedy=remedy)], arm=arm)
