"""Figures per class: precision, recall, F1, area under the ROC curve, confusion matrix. No torch."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.common.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

WEIGHTED = "weighted"
FIGURES = ("precision", "recall", "f1", "auc", "area_ratio")
_TOLERANCE = 1e-3  # of a row's sum; bfloat16 softmax gives sums up to 0.4 % off before it is made float32


class ScoreError(UserError, ValueError):
    """Probabilities, labels or names of classes of which no figures can be made."""


def per_class(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, class_names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Figures of every class, one against the rest; an image is predicted as its most probable class.

    Precision TP / (TP + FP), recall TP / (TP + FN) and F1 2 PR / (P + R) (sorensen, table A.1); area ratio
    2 (AUC - 1/2) (svalheim, equation 2). Computed by scikit-learn, the AUC from scipy's
    ranks. A class that is never predicted has precision 0.

    Args:
        probabilities: float (N, K).
        labels: int (N,), each in 0..K-1.
        class_names: K names for the index; None for 0..K-1.

    Returns:
        A frame with the columns `support, precision, recall, f1, auc, area_ratio, true_positives`, one row per class,
        and the row `weighted`: means weighted by support, and sums of support and true positives. A class without
        examples has NaN for recall, F1, AUC and area ratio, and a `UserWarning` names it; it has no weight.

    Raises:
        ScoreError: no arrays of numbers, shapes that do not fit, no images, NaN or infinity, rows that are no
            probabilities, labels that are not whole numbers or out of range, or names that are too few, too many or not
            unique.
    """
    import pandas as pd
    from sklearn.metrics import precision_recall_fscore_support

    scores, truth = _checked(probabilities, labels)
    classes = range(scores.shape[1])
    names = _names(class_names, len(classes))
    predicted = scores.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=list(classes), zero_division=0.0
    )
    missing = support == 0
    if missing.any():
        listed = ", ".join(str(names[index]) for index in np.flatnonzero(missing))
        warnings.warn(f"no examples of class {listed}: recall, F1 and AUC are NaN there", UserWarning, stacklevel=2)
    auc = _areas(scores, truth, support)
    found = {
        "support": support,
        "precision": precision,
        "recall": np.where(missing, np.nan, recall),
        "f1": np.where(missing, np.nan, f1),
        "auc": auc,
        "area_ratio": 2 * auc - 1,
        "true_positives": np.bincount(truth[truth == predicted], minlength=len(classes)),
    }
    last = {name: _weighted_mean(of, support) if name in FIGURES else of.sum() for name, of in found.items()}
    columns = {name: np.append(of, last[name]) for name, of in found.items()}
    return pd.DataFrame(columns, index=pd.Index([*names, WEIGHTED], name="class"))


def confusion(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Images (K, K) by true class (rows) and most probable class (columns).

    Raises:
        ScoreError: as `per_class`.
    """
    from sklearn.metrics import confusion_matrix

    scores, truth = _checked(probabilities, labels)
    matrix: npt.NDArray[np.int64] = confusion_matrix(truth, scores.argmax(axis=1), labels=range(scores.shape[1]))
    return matrix


def _areas(
    scores: npt.NDArray[np.float64], truth: npt.NDArray[np.int64], support: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Under the ROC curve of every class against the rest; NaN where there is no such class or no rest.

    By the ranks of all images (the statistic of Mann and Whitney over the number of pairs), all classes in one call:
    what scikit-learn's `roc_auc_score` gives class by class, and more slowly.
    """
    from scipy.stats import rankdata

    rest = len(truth) - support
    ranks = np.where(truth[:, None] == np.arange(len(support)), rankdata(scores, axis=0), 0).sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is meant
        areas: npt.NDArray[np.float64] = (ranks - support * (support + 1) / 2) / (support * rest)
    return areas


def _weighted_mean(values: npt.NDArray[np.float64], weights: npt.NDArray[np.int64]) -> float:
    """Over the classes that have examples; NaN if one of those has no value."""
    present = weights > 0
    return float(np.average(values[present], weights=weights[present]))


def _array(name: str, values: Any) -> npt.NDArray[Any]:
    """Of numbers; objects are taken for what they hold."""
    try:
        array = np.asarray(values)
        array = np.asarray(array.tolist()) if array.dtype == object else array
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; tensors on a GPU or with a gradient
        reason = str(error).partition("\n")[0]
        raise ScoreError(f"{name} are {reprlib.repr(values)}, no array of numbers ({reason})") from error
    if array.dtype.kind not in "iufb":
        raise ScoreError(f"{name} are of type {array.dtype}; numbers are needed")
    return array


def _checked(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    scores, truth = _array("probabilities", probabilities), _array("labels", labels)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ScoreError(
            f"probabilities have shape {scores.shape}; (images, classes) with two or more classes is needed"
        )
    if truth.shape != scores.shape[:1]:
        raise ScoreError(
            f"labels have shape {truth.shape}; ({len(scores)},) is needed, one for each row of probabilities"
        )
    if not len(truth):
        raise ScoreError("there are no images")
    if not np.issubdtype(truth.dtype, np.integer):
        raise ScoreError(f"labels are of type {truth.dtype}; whole numbers are needed")
    if scores.dtype == bool:
        raise ScoreError("probabilities are of type bool; fractions are needed")
    scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        raise ScoreError(f"probabilities hold NaN or infinity in {int((~np.isfinite(scores)).any(axis=1).sum())} rows")
    if scores.min() < 0 or np.abs(scores.sum(axis=1) - 1).max() > _TOLERANCE:
        raise ScoreError("rows of probabilities must be at least 0 and sum to 1; apply a softmax to logits first")
    if truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise ScoreError(f"labels lie in {truth.min()}..{truth.max()}; 0..{scores.shape[1] - 1} is needed")
    return scores, truth.astype(np.int64)


def _names(class_names: Sequence[str] | None, count: int) -> list[str] | list[int]:
    if class_names is None:
        return list(range(count))
    try:
        names = [] if isinstance(class_names, str) else list(class_names)
        unfit = len(names) != count or len(set(names)) != count or WEIGHTED in names
    except TypeError as error:
        raise ScoreError(f"class_names={reprlib.repr(class_names)}: {count} names are needed") from error
    if unfit:
        shown = reprlib.repr(class_names)
        raise ScoreError(f"class_names={shown}: {count} different names are needed, none of them '{WEIGHTED}'")
    return names
