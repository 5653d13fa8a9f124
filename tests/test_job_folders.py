"""What lies in a job's folder is what Hydra leaves there, byte for byte, without composing every job."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY, Answer
from hydra._internal.callbacks import Callbacks
from hydra.types import HydraContext
from test_arms import FUNCTION, arms_of, composer  # noqa: F401

from cnn_ablation.app.arms import Composer
from cnn_ablation.app.job_folders import JobFolders, JobValues
from cnn_ablation.study.designs import Arm

STUDIES: dict[str, list[str]] = {
    "values": ["optimizer.lr=1e-3,1e-4", "model.dropout=0,0.1"],
    "options": ["model=three_conv,lenet5", "optimizer=sgd,adam", "data=shapes"],
    "zipped": ["zip.z={label:'two words',train.epochs:3,model.filters:[8]},{model:lenet5,optimizer.lr:0.1}"],
    "a function": [*FUNCTION, "settings.shade=LIGHT,DARK", "settings.name=yes,'1','a: b','it\\'s',null"],
    "nested keys": [*FUNCTION, "settings.anything.a.b=1,[2,3],true", "settings.width=2"],
    "what is fixed too": ["model.dropout=0.1", "model.dropout=0.2,0.3", "store='some where'", "vary=[init]"],
    "interpolations": ["train.epochs=${replicates}", "model.dropout=0,0.1"],
    "dictionaries": [*FUNCTION, "settings.options={a:1},{b:2}"],
    "a long list of words": ["model.dropout=0,0.1", f"paper={'word_' * 30}"],
}


@pytest.fixture(autouse=True)
def log_settings_stay() -> Iterator[None]:
    """Hydra sets up the log of every job."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def job_of(arm: Arm, number: int, folder: Path, seed: int) -> JobValues:
    labels = {"arm.name": arm.name, "arm.knob": arm.knob, "arm.level": arm.level}
    return JobValues(number, {**labels, "seed": seed, "replicates": 1, "store": str(folder / "it's")}, folder)


def files_of(folder: Path, own: str) -> dict[str, str]:
    texts = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.yaml")}
    return {name: text.replace(own, "FOLDER") for name, text in texts.items()}


@pytest.mark.parametrize("case", STUDIES)
def test_files_are_those_of_hydra(case: str, composer: Callable[..., Composer], tmp_path: Path) -> None:  # noqa: F811
    study = composer(STUDIES[case])
    context = HydraContext(config_loader=study._loader, callbacks=Callbacks())
    folders = JobFolders(context, study._master, study)
    fast, slow = tmp_path / "fast", tmp_path / "slow"
    for number, arm in enumerate(arms_of(study)):
        folders.leave(arm, job_of(arm, number, fast, seed=number))
        folders.leave_by_hydra(arm, job_of(arm, number, slow, seed=number))
    found, wanted = files_of(fast, str(fast)), files_of(slow, str(slow))
    assert set(wanted) >= {f"1/.hydra/{name}.yaml" for name in ("config", "hydra", "overrides")}
    assert found == wanted


CALLBACK = """
from pathlib import Path
from hydra.experimental.callback import Callback

class Noting(Callback):
    def on_job_start(self, config, *, task_function, **kwargs):
        with Path("noted.txt").open("a") as file:
            print("start", config.arm.name, config.seed, file=file)

    def on_job_end(self, config, job_return, **kwargs):
        with Path("noted.txt").open("a") as file:
            print("end", config.arm.name, config.seed, file=file)
"""


@pytest.mark.usefixtures("undrawn")
def test_callbacks_of_a_persons_own_are_called_for_every_job(
    tmp_path: Path, cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "noting_callback.py").write_text(CALLBACK)
    (tmp_path / "own" / "hydra" / "callbacks").mkdir(parents=True)
    text = yaml.safe_dump({"noting": {"_target_": "noting_callback.Noting"}})
    (tmp_path / "own" / "hydra" / "callbacks" / "noting.yaml").write_text(text)
    lines = ["model.activation=relu,leaky", "replicates=1", "timing=packed", "hydra.sweep.dir=out"]
    answer = cli("-cd", "own", "-m", "hydra/callbacks=noting", *TINY, *lines)
    assert answer.code == 0, answer.err
    noted = (tmp_path / "noted.txt").read_text().splitlines()
    names = ("baseline", "model.activation=relu", "model.activation=leaky")
    assert sorted(noted) == sorted(f"{what} {name} 0" for what in ("start", "end") for name in (names[0], names[2]))
    sys.modules.pop("noting_callback", None)


def test_what_jobs_are_made_of(composer: Any, tmp_path: Path) -> None:  # noqa: F811
    """A person who opens the files finds the values of the run, as typed and as composed."""
    study = composer(["optimizer.lr=1e-3,1e-4"])
    folders = JobFolders(HydraContext(study._loader, Callbacks()), study._master, study)
    folders.leave_by_hydra = None  # type: ignore[assignment,method-assign]  # nothing here needs it
    arm = arms_of(study)[2]
    folders.leave(arm, job_of(arm, 5, tmp_path, seed=3))
    config, hydra, overrides = (
        yaml.safe_load((tmp_path / "5" / ".hydra" / f"{name}.yaml").read_text())
        for name in ("config", "hydra", "overrides")
    )
    assert config["optimizer"]["lr"] == 1e-4
    assert (config["seed"], config["arm"]["level"]) == (3, "0.0001")
    assert hydra["hydra"]["job"]["num"] == 5
    assert overrides[0] == "optimizer.lr=0.0001"
