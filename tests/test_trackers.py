"""TensorBoard, MLflow and W&B: what a reader gets back, by their own readers."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import TINY, UNDRAWN_COMMAND

pytestmark = [pytest.mark.trackers, pytest.mark.filterwarnings("ignore")]  # what others' readers say of theirs

STUDY = ["-m", *TINY, "model.activation=relu,leaky", "threads=1"]
ARMS = ["baseline", "model.activation=leaky"]
EPOCHS = 2
CURVES = ("train_loss", "train_seconds", "val_accuracy", "val_loss")


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., str]:
    """The real command in a folder of its own; what it prints to stderr."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "WANDB_"))}

    def call(*words: str, code: int = 0, folder: str = "out", drawn: bool = True, **environment: str) -> str:
        program = ["-m", "cnn_ablation"] if drawn else [UNDRAWN_COMMAND]
        line = [sys.executable, *program, *words, f"hydra.sweep.dir={folder}"]
        done = subprocess.run(
            line, capture_output=True, text=True, cwd=tmp_path, env=kept | environment, check=False, timeout=300
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr

    return call


def runs_of(folder: Path) -> dict[tuple[str, int], pd.Series]:
    return {(row["arm"], row["seed"]): row for _, row in pd.read_csv(folder / "runs.csv").iterrows()}


class TestTensorBoard:
    @staticmethod
    def read(folder: Path) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0, "images": 0})
        return accumulator.Reload()

    @staticmethod
    def text(log: Any, tag: str) -> str:
        [event] = log.Tensors(tag)
        return str(event.tensor_proto.string_val[0].decode())

    def test_a_reader_gets_curves_figures_table_and_pictures_once(
        self, command: Callable[..., str], tmp_path: Path
    ) -> None:
        for replicates in (2, 3, 3):  # extended, and repeated
            said = command(*STUDY, f"replicates={replicates}", "trackers=[tensorboard]")
            assert "left out" not in said
        runs = runs_of(tmp_path / "out")
        assert len(runs) == 6
        root = tmp_path / "out" / "tensorboard"
        assert sorted(path.name for path in root.iterdir()) == [*ARMS, "study"]
        for (arm, seed), row in runs.items():
            folder = root / arm / f"seed{seed}"
            assert len(list(folder.glob("events.*"))) == 1
            log = self.read(folder)
            for name in CURVES:
                assert [event.step for event in log.Scalars(f"curve/{name}")] == [1, 2]
            [final] = log.Scalars("test_accuracy")
            assert (final.step, final.value) == (EPOCHS, pytest.approx(row["test_accuracy"]))
            assert self.text(log, "fingerprint") == row["fingerprint"]
            assert self.text(log, "status") == "ok"
            assert {"_hparams_/session_start_info", "_hparams_/session_end_info"} <= set(log.Tags()["tensors"])
        study = self.read(root / "study")
        assert self.text(study, "ablation") == (tmp_path / "out" / "ablation.md").read_text()
        arms = pd.read_csv(tmp_path / "out" / "ablation.csv")
        for _, row in arms.iterrows():
            assert self.text(study, f"verdict/{row['arm']}") == row["verdict"]
        [delta] = study.Scalars(f"delta_pp/{ARMS[1]}")
        assert delta.value == pytest.approx(arms["delta_pp"][1])
        pictures = sorted((tmp_path / "out").glob("*.png"))
        assert sorted(study.Tags()["images"]) == [path.stem for path in pictures]
        [image] = study.Images(pictures[0].stem)
        assert image.encoded_image_string == pictures[0].read_bytes()

    def test_what_was_left_half_told_is_told_anew(self, command: Callable[..., str], tmp_path: Path) -> None:
        command(*STUDY, "replicates=1", "trackers=[tensorboard]", drawn=False)
        log = tmp_path / "out" / "tensorboard" / ARMS[1] / "seed0"
        (log / "finished").unlink()  # as an interrupted command leaves it
        command(*STUDY, "replicates=1", "trackers=[tensorboard]", drawn=False)
        assert [event.step for event in self.read(log).Scalars("curve/val_loss")] == [1, 2]
        assert len(list(log.glob("events.*"))) == 1

    def test_hyperparameters_are_the_knobs(self, command: Callable[..., str], tmp_path: Path) -> None:
        from tensorboard.plugins.hparams import plugin_data_pb2

        command(*STUDY, "replicates=1", "trackers=[tensorboard]", drawn=False)
        log = self.read(tmp_path / "out" / "tensorboard" / ARMS[1] / "seed0")
        data = log.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        found = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info.hparams
        assert found["model.activation"].string_value == "leaky"
        assert found["seed"].number_value == 0


@dataclass
class Server:
    """A real MLflow server on this machine."""

    uri: str


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = tmp_path / "server"
    place.mkdir()
    stores = ["--backend-store-uri", f"sqlite:///{place / 'db'}", "--artifacts-destination", str(place / "files")]
    line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", f"{port}", "--workers", "1"]
    with (place / "log").open("w") as log:
        process = subprocess.Popen([*line, *stores], cwd=place, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, (place / "log").read_text()
            assert time.monotonic() < until, (place / "log").read_text()
            time.sleep(0.2)
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass
class Found:
    """What MLflow's own client reads."""

    client: Any
    experiment: Any
    study: list[Any]
    arms: dict[str, Any]
    seeds: dict[tuple[str, int], Any]


def found_in(uri: str) -> Found:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    [experiment] = [each for each in client.search_experiments() if each.name != "Default"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    of_kind = {
        kind: [run for run in runs if run.data.tags["cnn_ablation.kind"] == kind] for kind in ("table", "arm", "seed")
    }
    assert sum(map(len, of_kind.values())) == len(runs)
    arms = {run.data.tags["cnn_ablation.arm"]: run for run in of_kind["arm"]}
    seeds = {(run.data.tags["cnn_ablation.arm"], int(run.data.tags["cnn_ablation.seed"])): run
             for run in of_kind["seed"]}  # fmt: skip
    assert (len(arms), len(seeds)) == (len(of_kind["arm"]), len(of_kind["seed"]))  # none is told twice
    return Found(client, experiment, of_kind["table"], arms, seeds)


class TestMLflow:
    def check(self, found: Found, folder: Path) -> None:
        """All of a finished study is there, once."""
        rows, table = runs_of(folder), pd.read_csv(folder / "ablation.csv").set_index("arm")
        assert found.experiment.name == f"model.activation {folder.parent.name}/{folder.name}"
        assert found.experiment.tags["mlflow.note.content"] == (folder / "ablation.md").read_text()[:5000]
        assert set(found.arms) == set(table.index)
        assert set(found.seeds) == set(rows)
        for key, run in found.seeds.items():
            arm, seed = key
            assert run.info.status == "FINISHED"
            assert run.info.run_name == f"{arm} seed {seed}"
            assert run.data.tags["mlflow.parentRunId"] == found.arms[arm].info.run_id
            assert run.data.tags["cnn_ablation.fingerprint"] == rows[key]["fingerprint"]
            assert run.data.tags["cnn_ablation.status"] == "ok"
            assert run.data.params["model.activation"] == ("leaky" if "leaky" in arm else "relu")
            assert run.data.metrics["test_accuracy"] == pytest.approx(rows[key]["test_accuracy"])
            for name in CURVES:
                history = found.client.get_metric_history(run.info.run_id, f"curve/{name}")
                assert [point.step for point in history] == [1, 2]
        for arm, run in found.arms.items():
            assert run.info.status == "FINISHED"
            assert run.data.tags["cnn_ablation.verdict"] == table["verdict"][arm]
            wanted = table.loc[arm, ["delta_pp", "delta_ci_low_pp", "delta_ci_high_pp"]].dropna()
            assert {name: run.data.metrics[name] for name in wanted.index} == pytest.approx(dict(wanted))
        [study] = found.study
        listed = {each.path for each in found.client.list_artifacts(study.info.run_id)}
        pictures = {path.name for path in folder.glob("*.png")}
        assert {
            "ablation.csv",
            "ablation.md",
            "ablation.html",
            "report.html",
            "runs.csv",
            "study.yaml",
            *pictures,
        } <= listed
        fetched = found.client.download_artifacts(study.info.run_id, "ablation.csv", str(folder.parent))
        assert Path(fetched).read_bytes() == (folder / "ablation.csv").read_bytes()

    def test_a_server_gets_a_study_and_what_is_added_to_it_once(
        self, command: Callable[..., str], server: Server, tmp_path: Path
    ) -> None:
        for replicates in (2, 3, 3):
            said = command(*STUDY, f"replicates={replicates}", "trackers=[mlflow]", MLFLOW_TRACKING_URI=server.uri)
            assert "left out" not in said
            found = found_in(server.uri)
            assert len(found.seeds) == 2 * replicates
            self.check(found, tmp_path / "out")
        assert not (tmp_path / "out" / "mlflow.db").exists()

    def test_without_a_server_a_study_has_a_database_of_its_own(
        self, command: Callable[..., str], tmp_path: Path
    ) -> None:
        said = command(*STUDY, "replicates=2", "trackers=[mlflow]", "timing=isolated")
        assert "alembic" not in said
        self.check(found_in(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}"), tmp_path / "out")

    def test_a_server_that_is_not_there_costs_no_run_and_little_time(
        self, command: Callable[..., str], tmp_path: Path
    ) -> None:
        started = time.monotonic()
        nobody = "http://127.0.0.1:9"
        said = command(*STUDY, "replicates=1", "trackers=[mlflow]", drawn=False, MLFLOW_TRACKING_URI=nobody)
        assert "warning: tracker mlflow is left out from here on: on_study: " in said
        assert time.monotonic() - started < 90
        assert len(runs_of(tmp_path / "out")) == 2

    def test_commands_that_make_one_database_at_once_wait_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of two that make its tables at once, one gets an error of the database's own library."""
        from cnn_ablation.trackers import mlflow

        made = []

        class Client:
            def __init__(self, uri: str):
                made.append(uri)

            def search_experiments(self, **_: int) -> list[object]:
                if len(made) < 3:
                    raise RuntimeError("duplicate column name: step")
                return []

        monkeypatch.setattr("mlflow.MlflowClient", Client)
        monkeypatch.setattr(mlflow, "_PAUSES", (0.0, 0.0, 0.0))
        mlflow._client("sqlite:///one.db")
        assert made == ["sqlite:///one.db"] * 3

    def test_what_was_left_half_told_is_told_anew(self, command: Callable[..., str], tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}"
        command(*STUDY, "replicates=1", "trackers=[mlflow]")
        found = found_in(uri)
        half = found.seeds[ARMS[1], 0].info.run_id
        found.client.set_terminated(half, "KILLED")  # as an interrupted command leaves it
        command(*STUDY, "replicates=1", "trackers=[mlflow]")
        again = found_in(uri)
        self.check(again, tmp_path / "out")
        assert again.seeds[ARMS[1], 0].info.run_id != half
        assert again.seeds[ARMS[0], 0].info.run_id == found.seeds[ARMS[0], 0].info.run_id

    def test_epochs_that_come_fast_are_sent_together_and_slow_ones_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A database, as without a server; every point is there afterwards, with its step."""
        from mlflow import MlflowClient

        from cnn_ablation.launch.observers import ObservedRun, ObservedStudy
        from cnn_ablation.trackers import mlflow

        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        sent = list[int]()
        log_batch = MlflowClient.log_batch

        def counting(client: MlflowClient, run_id: str, metrics: Any = (), **more: Any) -> None:
            sent.extend([len(metrics)] if metrics else [])
            log_batch(client, run_id, metrics=metrics, **more)

        monkeypatch.setattr(MlflowClient, "log_batch", counting)
        knobs = {"key": ["1"]}
        study = ObservedStudy("id", "name", tmp_path, "", "grid", knobs, {}, {"a": {}}, [0, 1], "loss", "lower")
        fast, slow, cut = (ObservedRun("a", "", "", seed, "ok", f"f{seed}", {}, {"end": 3.0}) for seed in range(3))
        tracker = mlflow.Tracker()
        tracker.on_study(study)
        tracker.on_start(fast)
        for epoch in range(1, 1201):
            tracker.on_epoch("a", 0, epoch, {"loss": 1 / epoch})
        tracker.on_run(fast)
        assert sent == [1000, 201]
        tracker.on_start(slow)
        monkeypatch.setattr(mlflow, "_PAUSE_SECONDS", 0.0)
        for epoch in (1, 2):
            tracker.on_epoch("a", 1, epoch, {"loss": 0.5})
        assert sent[2:] == [1, 1]
        monkeypatch.undo()
        tracker.on_start(cut)
        tracker.on_epoch("a", 2, 1, {"loss": 0.25})
        tracker.close()
        found = found_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
        history = found.client.get_metric_history(found.seeds["a", 0].info.run_id, "curve/loss")
        assert [(point.step, point.value) for point in history] == [(epoch, 1 / epoch) for epoch in range(1, 1201)]
        assert found.seeds["a", 0].data.metrics["end"] == 3.0
        assert found.seeds["a", 0].data.tags["cnn_ablation.status"] == "ok"
        assert {key: (run.info.status, run.data.metrics["curve/loss"]) for key, run in found.seeds.items()} == {
            ("a", 0): ("FINISHED", 1 / 1200), ("a", 1): ("KILLED", 0.5), ("a", 2): ("KILLED", 0.25),
        }  # fmt: skip


def records_of(path: Path) -> Iterator[Any]:
    """The records of a W&B file: a log of LevelDB's kind, in blocks of 32 KiB, of protobuf messages."""
    from wandb.proto import wandb_internal_pb2

    content, block, place, parts = path.read_bytes(), 2**15, 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if block - place % block < 7:  # the rest of a block that no header fits into
            place += block - place % block
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@dataclass
class Told:
    """A run of W&B, as its offline file has it."""

    run: Any
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    exit_code: int
    artefacts: list[Any]


def told_in(path: Path) -> Told:
    run, config, history, summary, code, artefacts = None, {}, [], {}, -1, []
    for record in records_of(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = run or record.run
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "config":
            config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "history":
            history.append(
                {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
            )
        elif kind == "summary":
            summary |= {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.summary.update
            }
        elif kind == "exit":
            code = record.exit.exit_code
        elif kind == "artifact":
            artefacts.append(record.artifact)
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            artefacts.append(record.request.log_artifact.artifact)
    return Told(run, config, history, summary, code, artefacts)


class TestWandb:
    def test_offline_files_hold_a_study_once(self, command: Callable[..., str], tmp_path: Path) -> None:
        for replicates in (1, 2, 2):
            said = command(*STUDY, f"replicates={replicates}", "trackers=[wandb]")
            assert "left out" not in said
            assert f"wandb sync {tmp_path / 'out' / 'wandb' / 'offline-run-*'}" in said
            finished = tmp_path / "out" / "wandb" / "finished.txt"
            finished.write_text("\n".join(finished.read_text().split()[1:]) + "\n")  # as if one had been interrupted
        files = sorted((tmp_path / "out" / "wandb").glob("offline-run-*/run-*.wandb"))
        told = [told_in(path) for path in files]
        runs = {(each.config["arm"], each.config["seed"]): each for each in told if each.run.job_type != "table"}
        tables = [each for each in told if each.run.job_type == "table"]
        rows = runs_of(tmp_path / "out")
        assert len(told) == len(rows) + 1  # for each id what was told last, so that a server takes them all
        assert set(runs) == set(rows)
        for (arm, seed), each in runs.items():
            row = rows[arm, seed]
            assert (each.run.project, each.run.job_type, each.run.display_name) == (
                "cnn_ablation", arm, f"{arm} seed {seed}"
            )  # fmt: skip
            assert each.run.run_group == f"model.activation {tmp_path.name}/out"
            assert each.config["fingerprint"] == row["fingerprint"]
            words = (f"study {each.config['study']}", f"arm {arm}", f"seed {seed}", f"fingerprint {row['fingerprint']}")
            assert set(each.run.tags) == set(words)
            assert each.config["model.activation"] == ("leaky" if "leaky" in arm else "relu")
            curve = [point["curve/val_loss"] for point in each.history if "curve/val_loss" in point]
            assert len(curve) == EPOCHS
            assert each.summary["test_accuracy"] == pytest.approx(row["test_accuracy"])
            assert each.exit_code == 0
        [last] = tables
        table = pd.read_csv(tmp_path / "out" / "ablation.csv").set_index("arm")
        assert last.summary[f"{ARMS[1]}/verdict"] == table["verdict"][ARMS[1]]
        assert last.summary[f"{ARMS[1]}/delta_pp"] == pytest.approx(table["delta_pp"][ARMS[1]])
        names = {entry.path for each in last.artefacts for entry in each.manifest.contents}
        assert {"ablation.csv", "ablation.md", "report.html", "runs.csv", "differences.png"} <= names

    def test_its_own_switch_is_heard(self, command: Callable[..., str], tmp_path: Path) -> None:
        command(*STUDY, "replicates=1", "trackers=[wandb]", drawn=False, WANDB_MODE="disabled")
        assert list((tmp_path / "out" / "wandb").glob("*run-*")) == []


def test_all_three_at_once_in_a_greedy_study(command: Callable[..., str], tmp_path: Path) -> None:
    words = [*STUDY, "model.dropout=0,0.3", "hydra.sweeper.design=greedy", "replicates=1"]
    said = command(*words, "trackers=[tensorboard,mlflow,wandb]", drawn=False)
    assert "left out" not in said
    found = found_in(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    arms = set(pd.read_csv(tmp_path / "out" / "ablation.csv")["arm"])
    assert set(found.arms) == arms
    assert not any(name.startswith("test_") for run in found.seeds.values() for name in run.data.metrics)
    assert (tmp_path / "out" / "tensorboard").is_dir()
    assert len(list((tmp_path / "out" / "wandb").glob("offline-run-*"))) == len(arms) + 1
