"""What a user can set: the words of a schema, what every study can be told, and the values of a configuration.

Tasks add their own keys (`tasks/image_classification/config.py`). Standard library only.
"""

from cnn_ablation.common.words import nearest
from cnn_ablation.config.schema import (
    CONDUCT,
    FILES,
    LABEL,
    LARGEST_SEED,
    OWN_CODE,
    RESULT,
    SEEDS,
    SHOWN,
    TEST_SET,
    WHAT_IS_TRAINED,
    Bounds,
    Role,
    Section,
    as_python,
    bounds_of,
    default_of,
    doc_of,
    fields_of,
    free_keys,
    group_name,
    is_free,
    keys_of,
    leaves,
    one_form,
    role_of,
    setting,
    types_of,
)
from cnn_ablation.config.study import ANYTIME, AUTO, ArmConfig, StatsConfig, StudyConfig, TaskConfig
from cnn_ablation.config.values import (
    all_settings,
    field_of,
    fits,
    from_settings,
    result_settings,
    shown,
    split_free,
    unknown_key,
    value_problems,
    with_settings,
)

__all__ = [
    "ANYTIME", "AUTO", "CONDUCT", "FILES", "LABEL", "LARGEST_SEED", "OWN_CODE", "RESULT", "SEEDS", "SHOWN",
    "TEST_SET",
    "WHAT_IS_TRAINED",
    "ArmConfig", "Bounds", "Role", "Section", "StatsConfig", "StudyConfig", "TaskConfig",
    "all_settings", "as_python", "bounds_of", "default_of", "doc_of", "field_of", "fields_of", "fits", "free_keys",
    "from_settings", "group_name", "is_free", "keys_of", "leaves", "nearest", "one_form", "result_settings",
    "role_of", "setting", "shown", "split_free", "types_of", "unknown_key", "value_problems", "with_settings",
]  # fmt: skip
