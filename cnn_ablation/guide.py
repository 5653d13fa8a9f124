"""`python -m cnn_ablation guide`: one page for whoever sets up a study, with the names of the installed version.

The prose is guide.md beside this file; names, keys and defaults come from the code. No torch, no Hydra.
"""

from __future__ import annotations

from cnn_ablation.common import commands

if __name__ == "__main__":
    commands.leave_when_interrupted()

import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template

WIDTH = 100
_KEY_WIDTH = 38
MAIN_KEYS = (
    "replicates", "seed", "vary", "dry_run", "hydra.sweeper.design", "stats.metric", "stats.margin_pp", "stats.test",
    "timing", "device", "reuse", "on_error", "data.val_fraction", "model.activation", "model.dropout",
    "model.batch_norm", "optimizer.lr", "train.epochs", "train.updates", "train.scale", "train.batch_size",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the page; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return commands.guarded(lambda: show(words))


def show(words: Sequence[str]) -> int:
    """Prints the page.

    Raises:
        UserError: there are words, which it does not take.
    """
    from cnn_ablation.common.errors import UserError

    if {"-h", "--help"} & set(words):
        print(__doc__)
    elif words:
        raise UserError(
            f"configuration error: guide {' '.join(words)}\n  allowed: guide alone; it prints one page\n"
            "  remedy: python -m cnn_ablation guide"
        )
    else:
        print(text(), end="")
    return 0


def text() -> str:
    """The whole page."""
    import cnn_ablation
    from cnn_ablation.config import StatsConfig

    page = Template(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    return page.substitute(
        version=cnn_ablation.__version__,
        metric=StatsConfig.metric,
        margin_pp=StatsConfig.margin_pp,
        main_keys="\n".join(_main_keys()),
        choices="\n".join(_choices()),
        all_keys="\n".join(_all_keys()),
    )


def _main_keys() -> Iterator[str]:
    from cnn_ablation.app import keys
    from cnn_ablation.config import doc_of
    from cnn_ablation.study.designs import DESIGNS

    schema = keys.schema_keys()
    for key in MAIN_KEYS:
        if key in schema:
            yield from _row(
                f"{key}={keys.default(schema[key])}", f"{doc_of(schema[key])} ({keys.allowed(schema[key])})"
            )
        else:
            yield from _row(f"{key}={next(iter(DESIGNS))}", f"how knobs become arms ({', '.join(DESIGNS)})")


def _choices() -> Iterator[str]:
    from cnn_ablation.app import keys

    launchers = sorted(path.stem for path in (Path(keys.CONF_DIR) / "hydra" / "launcher").glob("*.yaml"))
    groups = {**keys.group_options(), "hydra/launcher": launchers}
    for group, options in groups.items():
        yield from _row(f"{group}=", ", ".join(options))


def _all_keys() -> Iterator[str]:
    """The names of every section's keys, many on a line."""
    from cnn_ablation.app import keys

    by_section: dict[str, list[str]] = {}
    for key in keys.schema_keys():
        section, _, name = key.rpartition(".")
        by_section.setdefault(section, []).append(name)
    for section, names in by_section.items():
        yield from _row(f"{section}." if section else "(no section)", " ".join(names), width=14)


def _row(name: str, about: str, width: int = _KEY_WIDTH) -> list[str]:
    indent = " " * (width + 5)
    first = f"    {name.ljust(width)} "
    return textwrap.wrap(
        first + about, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip


if __name__ == "__main__":
    commands.run_as_process(main)
