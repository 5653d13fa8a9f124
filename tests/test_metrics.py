"""Figures per class: by hand, against scikit-learn on random cases, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from cnn_ablation.analysis.metrics import ScoreError, confusion, per_class
from cnn_ablation.common.errors import UserError

# Six images, three classes; predictions 0 0 1 1 2 0 for labels 0 0 1 2 2 1.
PROBABILITIES = [
    [0.8, 0.1, 0.1],
    [0.5, 0.3, 0.2],
    [0.1, 0.7, 0.2],
    [0.2, 0.5, 0.3],
    [0.1, 0.3, 0.6],
    [0.6, 0.2, 0.2],
]
LABELS = [0, 0, 1, 2, 2, 1]


def test_by_hand() -> None:
    found = per_class(PROBABILITIES, LABELS, ["cat", "dog", "eel"])
    assert list(found.columns) == ["support", "precision", "recall", "f1", "auc", "area_ratio", "true_positives"]
    assert list(found.index) == ["cat", "dog", "eel", "weighted"]
    # cat: predicted for images 0, 1, 5, right for 0, 1. Scores .8 .5 against .1 .2 .1 .6: 7 of 8 pairs.
    assert found.loc["cat"].tolist() == pytest.approx([2, 2 / 3, 1, 0.8, 7 / 8, 3 / 4, 2])
    # dog: predicted for 2, 3, right for 2. Scores .7 .2 against .1 .3 .5 .3: 4 + 1 of 8 pairs.
    assert found.loc["dog"].tolist() == pytest.approx([2, 1 / 2, 1 / 2, 1 / 2, 5 / 8, 1 / 4, 1])
    # eel: predicted for 4 alone. Scores .3 .6 against .1 .2 .2 .2: all 8 pairs.
    assert found.loc["eel"].tolist() == pytest.approx([2, 1, 1 / 2, 2 / 3, 1, 1, 1])
    means = [(2 / 3 + 1 / 2 + 1) / 3, 2 / 3, (0.8 + 0.5 + 2 / 3) / 3, 2.5 / 3, 2 / 3]
    assert found.loc["weighted"].tolist() == pytest.approx([6, *means, 4])
    assert confusion(PROBABILITIES, LABELS).tolist() == [[2, 0, 0], [1, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    classes = int(generator.integers(2, 9))
    probabilities = generator.dirichlet(np.ones(classes), size=300)
    labels = generator.choice(classes, size=300, p=generator.dirichlet(5 * np.ones(classes)))
    labels[:classes] = range(classes)
    found = per_class(probabilities, labels)
    report = sklearn_metrics.classification_report(
        labels, probabilities.argmax(axis=1), output_dict=True, zero_division=0
    )
    for name, ours in (("precision", "precision"), ("recall", "recall"), ("f1-score", "f1"), ("support", "support")):
        assert found[ours][:-1].tolist() == pytest.approx([report[str(index)][name] for index in range(classes)])
        assert found.loc["weighted", ours] == pytest.approx(report["weighted avg"][name])
    one_hot = np.eye(classes)[labels]
    assert found["auc"][:-1].tolist() == pytest.approx(
        sklearn_metrics.roc_auc_score(one_hot, probabilities, average=None)
    )
    assert found.loc["weighted", "auc"] == pytest.approx(
        sklearn_metrics.roc_auc_score(one_hot, probabilities, average="weighted")
    )
    assert found["area_ratio"].tolist() == pytest.approx((2 * found["auc"] - 1).tolist())
    assert found["true_positives"].sum() == 2 * (labels == probabilities.argmax(axis=1)).sum()
    assert found["support"].dtype == found["true_positives"].dtype == np.int64


def test_a_class_without_examples_is_nan_with_a_warning_and_has_no_weight() -> None:
    with pytest.warns(UserWarning, match="no examples of class eel"):
        found = per_class(PROBABILITIES[:3], [0, 0, 1], ["cat", "dog", "eel"])
    assert found.loc["eel", ["recall", "f1", "auc", "area_ratio"]].isna().all()
    assert found.loc["weighted", "recall"] == 1
    assert found.loc["weighted", "auc"] == 1


def test_a_single_class_has_no_auc() -> None:
    with pytest.warns(UserWarning, match="dog, eel"):
        found = per_class(PROBABILITIES[:2], [0, 0], ["cat", "dog", "eel"])
    assert np.isnan(found.loc["cat", "auc"])
    assert found.loc["cat", "recall"] == 1


@pytest.mark.parametrize(
    ("probabilities", "labels", "names", "message"),
    [
        ([0.5, 0.5], [0], None, r"shape \(2,\)"),
        ([[1.0], [1.0]], [0, 0], None, "two or more classes"),
        (PROBABILITIES, LABELS[:5], None, r"labels have shape \(5,\); \(6,\)"),
        (PROBABILITIES, [LABELS], None, r"labels have shape \(1, 6\)"),
        (np.zeros((0, 3)), np.zeros(0, dtype=int), None, "no images"),
        (PROBABILITIES, [0.0] * 6, None, "float64; whole numbers"),
        ([[np.nan, 1.0], [0.5, 0.5]], [0, 1], None, "NaN or infinity in 1 rows"),
        ([[2.0, -1.0], [0.5, 0.5]], [0, 1], None, "apply a softmax"),
        ([[3.0, 4.0], [0.5, 0.5]], [0, 1], None, "apply a softmax"),
        (PROBABILITIES, [0, 0, 1, 2, 3, 1], None, r"0..3; 0..2 is needed"),
        (PROBABILITIES, [0, 0, 1, 2, -1, 1], None, r"-1..2"),
        (PROBABILITIES, LABELS, ["a", "b"], "3 different names"),
        (PROBABILITIES, LABELS, ["a", "b", "b"], "3 different names"),
        (PROBABILITIES, LABELS, ["a", "b", "weighted"], "weighted"),
        (PROBABILITIES, LABELS, "abc", "class_names='abc': 3 different names"),
        (PROBABILITIES, LABELS, 3, "class_names=3: 3 names are needed"),
        (PROBABILITIES, LABELS, [["a"], ["b"], ["c"]], "3 names are needed"),
        (None, LABELS, None, "probabilities are of type|probabilities have shape"),
        ("abc", LABELS, None, "probabilities are of type <U3; numbers are needed"),
        ([["0.5", "0.5"]], [0], None, "probabilities are of type <U3; numbers are needed"),
        ([[0.5, 0.5], [1.0]], [0, 1], None, "no array of numbers"),
        ([[0.5 + 0j, 0.5]], [0], None, "probabilities are of type complex128"),
        ([{"cat": 0.5}], [0], None, "numbers are needed"),
        (PROBABILITIES, ["cat"] * 6, None, "labels are of type <U3; numbers are needed"),
        (PROBABILITIES, [None] * 6, None, "labels are of type object; numbers are needed"),
        (PROBABILITIES, [True] * 6, None, "labels are of type bool; whole numbers"),
        ([[True, False]], [0], None, "probabilities are of type bool; fractions"),
        (PROBABILITIES, [0, 1, [2], 0, 1, 2], None, "no array of numbers"),
    ],
)
def test_bad_input_is_refused(probabilities: object, labels: object, names: list[str] | None, message: str) -> None:
    for refused in (lambda: per_class(probabilities, labels, names), lambda: confusion(probabilities, labels)):
        with pytest.raises(ValueError, match=message) as raised:
            refused()
        assert isinstance(raised.value, UserError)
        if names is not None:
            return  # a confusion matrix has none


def test_tensors_that_numpy_cannot_read_are_refused() -> None:
    import torch

    scores = torch.tensor(PROBABILITIES, requires_grad=True)
    with pytest.raises(ScoreError, match=r"no array of numbers .*grad"):
        per_class(scores, LABELS)
    assert confusion(scores.detach(), torch.tensor(LABELS)).sum() == 6


def test_objects_are_taken_for_the_numbers_they_hold() -> None:
    scores, labels = np.array(PROBABILITIES, dtype=object), np.array(LABELS, dtype=object)
    assert per_class(scores, labels).equals(per_class(PROBABILITIES, LABELS))
