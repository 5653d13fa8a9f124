"""`task=function`: any training at all, as a function of its settings."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import UNDRAWN_COMMAND, Answer

import cnn_ablation
from cnn_ablation import store
from cnn_ablation.common import machine
from cnn_ablation.common.errors import ConfigError
from cnn_ablation.config import all_settings, with_settings
from cnn_ablation.runs.run import run
from cnn_ablation.runs.task import check
from cnn_ablation.tasks.function import signature
from cnn_ablation.tasks.function import task as function_task

Cli = Callable[..., Answer]

MODULE = '''
import subprocess
import sys
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

from my_helper import SCALE
from cnn_ablation.config import Bounds


class Mode(Enum):
    fast = 1
    slow = 2


def train(lr: float = 0.1, width: int = 64, *, seed: int) -> dict[str, float]:
    """Loss falls with the width; the seed adds its share."""
    print("training with", lr, width)
    return {"val_loss": SCALE * (lr - 0.05) ** 2 + 1 / width + 0.001 * seed, "steps": 10}


def many(
    rate: float = 1.0,
    count: int | None = None,
    kind: Literal["a", "b"] = "a",
    mode: Mode = Mode.fast,
    place: Path = Path("here"),
    sizes: tuple[int, ...] = (1, 2),
    share: Annotated[float, Bounds(at_least=0, at_most=1)] = 0.5,
    needed: int = ...,
    *,
    seed: int,
):
    return {"sum": 1.0}


def typed(mode: Mode = Mode.fast, place: Path = Path("here"), sizes: tuple[int, ...] = (1, 2), *, seed):
    return {"ok": float(mode is Mode.slow and place == Path("there") and sizes == (3, 4))}


def demanding(size: int, *, seed):
    return {"size": size}


def watched(fail: str = "", *, seed, run):
    (run.folder / "mine.txt").write_text(run.device)
    for epoch in (1, 2):
        run.report(epoch, val_loss=1 / epoch)
    return {"my_threads": run.threads}


def busy(where: str = "here", *, seed):
    burn = "import time\\nwhile time.process_time() < {}: pass"
    time.sleep(0.2)
    if where == "here":
        exec(burn.format(time.process_time() + 0.1))
    else:
        subprocess.run([sys.executable, "-S", "-c", burn.format(0.1)], check=True)
    return {"a": 1.0}


def faulty(result: str = "none", *, seed):
    known = {"none": None, "empty": {}, "text": {"a": "b"}, "list": [1], "bool": {"a": True}}
    known |= {"not_a_number": {"a": float("nan")}, "percent": {"test_accuracy": 93.0}, "taken": {"seed": 1}}
    if result == "exits":
        raise SystemExit(3)
    if result == "raises":
        raise RuntimeError("out of paint")
    return known[result]


def nested(opt: dict = {"lr": 0.1, "beta": {"one": 0.9, "two": 0.5}}, more: dict = {}, odd: dict = {1: 2}, *, seed):
    figures = {"lr": opt.pop("lr"), **opt.pop("beta"), **opt, **more, "odd": odd[1]}
    return {"loss": 0.0, **figures}


def seedless(lr=0.1):
    return {"a": 1.0}


NUMBER = 3
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A person's folder with her module and a helper of it."""
    (tmp_path / "my_train.py").write_text(MODULE)
    (tmp_path / "my_helper.py").write_text("SCALE = 1.0\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    forgotten()
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


def forgotten() -> None:
    """Nothing of the person's modules is known any more."""
    for name in ("my_train", "my_helper"):
        sys.modules.pop(name, None)
    for kept in (signature.parameters, signature._schema):
        kept.cache_clear()


def composed(function: str, *overrides: str):  # type: ignore[no-untyped-def]
    return cnn_ablation.compose(["task=function", f"task.target=my_train.{function}", *overrides])


def test_the_signature_is_the_schema(here: Path) -> None:
    settings = all_settings(composed("train", "settings.width=32"))
    assert {key: value for key, value in settings.items() if key.startswith(("settings.", "task."))} == {
        "task.name": "function",
        "task.target": "my_train.train",
        "settings.lr": 0.1,
        "settings.width": 32,
    }


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("settings.rat=1", ["settings.rat=1", "rate, count, kind", "did you mean: settings.rate=1"]),
        ("settings.rate=fast", ["settings.rate='fast'", "allowed: float"]),
        ("settings.count=1.5", ["settings.count=1.5", "int"]),
        ("settings.kind=c", ["settings.kind=c", "allowed: a, b"]),
        ("settings.mode=fats", ["settings.mode=fats", "allowed: fast, slow", "did you mean: settings.mode=fast"]),
        ("settings.share=2", ["settings.share=2", "at least 0 and at most 1"]),
        ("settings.sizes=3", ["settings.sizes=3", "list"]),
        ("task.target=my_train.trian", ["task.target=my_train.trian", "did you mean: task.target=my_train.train"]),
        ("task.target=my_trian.train", ["no module my_trian", "did you mean: task.target=my_train.train"]),
        ("task.target=my_train.NUMBER", ["task.target=my_train.NUMBER", "a function; this is 3"]),
        ("task.target=my_train.seedless", ["a function that takes seed", "def seedless(..., *, seed: int)"]),
        ("task.target=my_train.demanding", ["settings.size=???", "a value must be given", "settings.size=VALUE"]),
        ("settings=5", ["settings=5", "arguments of my_train.many by name", "settings.rate=VALUE"]),
        ("model.activation=leaky", ["model.activation=leaky", "this key belongs to task=image_classification"]),
        ("replicate=2", ["replicate=2", "keys of the task that is chosen", "did you mean: replicates=2"]),
        ("data=cifar10", ["data=cifar10", "task=image_classification"]),
        ("task=functoin", ["task=functoin", "did you mean: task=function"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_named_before_anything_runs(here: Path, cli: Cli, override: str, words: list[str]) -> None:
    target = [] if override.startswith("task.target") else ["task.target=my_train.many"]
    answer = cli("task=function", *target, override)
    assert answer.code == 2
    assert [word for word in words if word not in answer.err] == [], answer.err
    assert len(answer.err.strip().splitlines()) <= 10
    assert not (here / ".ablation_runs").exists()


def test_a_function_without_a_name_is_asked_for(here: Path, cli: Cli) -> None:
    answer = cli("task=function")
    assert (answer.code, "task.target" in answer.err, "a value must be given" in answer.err) == (2, True, True)


def test_values_come_as_the_function_types_them(here: Path) -> None:
    config = composed("typed", "settings.mode=slow", "settings.place=there", "settings.sizes=[3,4]", "replicates=1")
    (done,) = run(config, here / "job")
    assert (done.error, done.metrics) == ("", {"ok": 1.0})


def test_an_argument_that_no_configuration_can_hold_keeps_its_default(here: Path) -> None:
    assert "settings.needed" not in all_settings(composed("many"))


def test_a_run_is_given_its_place_and_reports(here: Path) -> None:
    (done,) = run(composed("watched", "replicates=1", "threads=1"), here / "job")
    assert (done.status, done.metrics, done.epochs) == ("ok", {"my_threads": 1.0}, 2)
    assert done.curves == [{"epoch": 1, "val_loss": 1.0}, {"epoch": 2, "val_loss": 0.5}]
    assert (here / "job" / "mine.txt").read_text() == "cpu"


def test_a_run_knows_its_processor_and_its_threads(here: Path) -> None:
    (done,) = run(composed("watched", "replicates=1", "threads=2", "device=cpu"), here / "job")
    assert (done.hardware, done.threads) == (machine.cpu_name(), 2)
    assert done.train_started < done.train_ended < done.train_started + 60
    assert done.neighbours == 0


@pytest.mark.parametrize("where", ["here", "in a child"])
def test_what_a_function_computes_counts_but_not_what_it_waits(here: Path, where: str) -> None:
    """A function sleeps 0.2 s and computes for 0.1 s, itself or in a process that it starts."""
    (done,) = run(composed("busy", "replicates=1", f"settings.where={where}"), here / "job")
    assert (done.status, done.error) == ("ok", "")
    assert done.train_seconds > 0.3
    assert 0.1 <= done.cpu_seconds + 0.01 < done.train_seconds  # the system counts children in hundredths


def test_what_it_prints_goes_to_the_folder_of_the_run(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(composed("train", "replicates=1"), here / "job")
    assert (here / "job" / "output-seed0.txt").read_text() == "training with 0.1 64\n"
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("result", "status", "words"),
    [
        ("none", "failed", "returned None; a mapping of a metric's name to its number is wanted"),
        ("empty", "failed", "returned {}"),
        ("list", "failed", "returned [1]"),
        ("text", "failed", "the metric a is 'b'; a number is wanted"),
        ("bool", "failed", "the metric a is True; a number is wanted"),
        ("percent", "failed", "returned test_accuracy=93; accuracies are fractions, 0 to 1"),
        ("taken", "failed", "a metric seed, which is a column of every run"),
        ("exits", "failed", "my_train.faulty ended the process: sys.exit(3)"),
        ("raises", "failed", "RuntimeError: out of paint"),
        ("not_a_number", "diverged", ""),
    ],
)
def test_a_wrong_result_is_a_row(here: Path, result: str, status: str, words: str) -> None:
    (done,) = run(composed("faulty", f"settings.result={result}", "replicates=1"), here / "job")
    assert (done.status, words in done.error) == (status, True)
    assert (here / "job" / "run-seed0.traceback.txt").exists() == (result == "raises")


def test_finished_runs_are_reused_until_the_code_changes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files of the same second and size look the same to Python

    def reused(job: str) -> bool:
        """As in another process, which imports what is there by then; `test_taking.py` has real ones."""
        forgotten()
        [found] = run(composed("train", "replicates=1"), here / job)
        return found.reused

    assert reused("first") is False
    assert reused("second") is True
    module = here / "my_train.py"
    module.write_text(module.read_text().replace("    print(", "    # by hand\n\n    print( "))
    assert reused("comment") is True, "comments and layout say nothing"
    module.write_text(module.read_text().replace("1 / width", "2  / width"))
    assert reused("changed") is False
    (here / "my_helper.py").write_text("SCALE = 2.0\n")
    assert reused("helper") is False, "what it imports of her own counts"


def test_a_configuration_travels_to_another_process(here: Path) -> None:
    config = composed("train", "settings.width=8")
    again = pickle.loads(pickle.dumps(config))
    assert all_settings(again) == all_settings(config)
    assert with_settings(again, [("settings.lr", 0.5)]).settings.lr == 0.5
    check(again)


def test_a_setting_that_is_not_there_is_named_in_python_too(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"settings\.widht"):
        with_settings(composed("train"), [("settings.widht", 3)])


NESTED = {"lr": 0.1, "one": 0.9, "two": 0.5, "odd": 2.0, "loss": 0.0}


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        ([], {}),
        (["settings.opt.lr=0.2"], {"lr": 0.2}),
        (["settings.opt.beta.two=0.25", "settings.more.a=3"], {"two": 0.25, "a": 3.0}),
        (["settings.opt={momentum:0.5,beta:{one:0}}"], {"momentum": 0.5, "one": 0.0}),
    ],
    ids=["defaults", "one key", "deeper", "a dictionary"],
)
def test_keys_inside_a_dictionary_are_settings(here: Path, overrides: list[str], changed: dict[str, float]) -> None:
    """The function takes out what it gets, and the next seed has all of it."""
    found = run(composed("nested", *overrides, "replicates=2"), here / "job")
    assert [done.metrics for done in found] == [NESTED | changed] * 2
    settings = {"settings.opt.lr": 0.1, "settings.opt.beta.one": 0.9, "settings.opt.beta.two": 0.5}
    typed = {key: value for key, value in found[1].settings.items() if key.startswith("settings.")}
    assert typed.keys() >= settings.keys()
    assert typed["settings.opt.lr"] == found[1].metrics["lr"]


@pytest.mark.usefixtures("undrawn")
def test_a_key_inside_a_dictionary_is_a_knob(here: Path, cli: Cli) -> None:
    words = ["-m", "task=function", "task.target=my_train.nested", "settings.opt.beta.two=0.5,0.25", "stats.metric=two"]
    answer = cli(*words, "settings.more={a:1}", "replicates=2", "hydra.sweep.dir=typed")
    assert answer.code == 0, answer.err
    baseline = composed("nested", "settings.more={a:1}", "replicates=2", "stats.metric=two", "timing=isolated")
    found = cnn_ablation.ablate(baseline, {"settings.opt.beta.two": [0.25], "both": [{"settings.more.a": 2}]}, "python")
    assert found["arm"].tolist() == ["baseline", "settings.opt.beta.two=0.25", "both={settings.more.a:2}"]
    assert found["metric_mean"].tolist() == [0.5, 0.25, 0.5]
    runs = {name: cnn_ablation.load_runs(name).set_index(["arm", "seed"]) for name in ("typed", "python")}
    assert runs["typed"]["settings.opt.beta.two"].tolist() == [0.5, 0.5, 0.25, 0.25]
    assert runs["python"]["reused"].tolist() == [True] * 4 + [False] * 2
    again = pickle.loads(pickle.dumps(with_settings(baseline, [("settings.opt", {"lr": 1.0})])))
    assert again.settings.opt == {"lr": 1.0}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("settings.opt.beta.tow=0.5", ["allowed: one, two;", "mean: settings.opt.beta.two=0.5"]),
        ("settings.opt.Lr=0.5", ["mean: settings.opt.lr=0.5", "give it a default in the function"]),
        ("settings.opt.lrs=0.5", ["mean: settings.opt.lr=0.5"]),
        ("settings.opt.rl=0.5", ["mean: settings.opt.lr=0.5"]),
        ("settings.opt.lr2=0.5", []),
        ("settings.opt.l=0.5", []),
        ("settings.opt.wd=0.5", []),
        ("settings.opt.momentum=0.5", []),
        ("settings.more.lr=0.5", []),
    ],
)  # fmt: skip
def test_a_slip_inside_a_dictionary_is_refused_and_a_further_key_is_not(
    here: Path, override: str, said: list[str]
) -> None:
    """With a slip all arms would train the defaults, and be called equivalent."""
    key, value = override.split("=")
    for config in (composed("nested", override), with_settings(composed("nested"), [(key, float(value))])):
        found = "".join(map(str, function_task.problems(config)))
        assert all(word in found for word in said), found
        assert bool(found) == bool(said)


def test_a_key_inside_a_value_takes_its_place_in_python_too(here: Path) -> None:
    typed, made = (
        composed("nested", "settings.opt.lr.x=3"),
        with_settings(composed("nested"), [("settings.opt.lr.x", 3)]),
    )
    assert typed.settings.opt == made.settings.opt == {"lr": {"x": 3}, "beta": {"one": 0.9, "two": 0.5}}


@pytest.mark.parametrize(
    ("override", "words"),
    [("settings.opt=3", ["settings.opt=3", "allowed: dict"]), ("settings.otp.lr=3", ["did you mean: settings.opt"])],
)
def test_what_is_no_dictionary_is_refused(here: Path, override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        check(composed("nested", override))
    assert all(word in str(refused.value) for word in words), str(refused.value)


SCRIPT = """
import sys
import cnn_ablation
from cnn_ablation import store

def helper(x):
    return x + SHIFT

def train(lr: float = 0.1, *, seed):
    return {"loss": helper(lr) + 0.01 * seed ** 2 * lr}

if __name__ == "__main__":
    from cnn_ablation.report import page, study
    study.picture_files = page.files = lambda *_: {}  # nobody looks at them
    baseline = cnn_ablation.compose(["task=function", "task.target=__main__.train", "replicates=3"])
    cnn_ablation.ablate(baseline, {"settings.lr": [0.2]}, sys.argv[1])
    print("reused", int(cnn_ablation.load_runs(sys.argv[1])["reused"].sum()))
"""


def test_a_function_of_a_script_or_notebook_is_known_by_its_code(here: Path) -> None:
    """It has no module that others could import: its runs follow one another, and what it uses counts."""

    def reused(folder: str, text: str) -> int:
        (here / "script.py").write_text(text)
        done = subprocess.run([sys.executable, "script.py", folder], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "side by side" not in done.stderr
        return int(done.stdout.splitlines()[-1].removeprefix("reused "))

    script = SCRIPT.replace("SHIFT", "1")
    assert reused("a", script) == 0
    assert reused("b", script) == 6
    assert reused("c", script.replace("x + 1", "x + 2")) == 0


def test_help_lists_the_settings_of_a_function_that_is_named(here: Path, cli: Cli) -> None:
    answer = cli("task=function", "task.target=my_train.many", "--help")
    assert answer.code == 0, answer.err
    part = answer.out.partition("task=function\n")[2]
    for words in ("settings.rate=1.0", "settings.count=null", "int | None", "settings.kind=a", "a, b", "fast, slow"):
        assert words in part, words
    assert "settings.NAME" in cli("--help").out


def test_the_store_lists_functions_by_name_and_figure(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(composed("train", "replicates=1"), here / "job")
    assert store.main(["list"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "my_train.train" in line)
    assert line.split()[1:3] == ["finished", "yes"]
    assert "val_loss 0.01813" in line


def test_lines_about_the_study_stay_out_of_the_output_of_runs(here: Path) -> None:
    """In one process, where a thread says what has finished while the next function prints."""
    (here / "my_train.py").write_text(MODULE.replace("    print(", "    import time; time.sleep(0.4); print("))
    done = subprocess.run(
        [sys.executable, UNDRAWN_COMMAND, "-m", "task=function", "task.target=my_train.train", "replicates=2",
         "settings.lr=0.1,0.2", "timing=isolated", "hydra.sweep.dir=study"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line[:5] for line in done.stderr.splitlines()] == [f"[{number}/4]" for number in range(1, 5)]
    printed = [path.read_text() for path in sorted(here.glob("study/*/output-seed*.txt"))]
    assert sorted(printed) == ["training with 0.1 64\n"] * 2 + ["training with 0.2 64\n"] * 2
