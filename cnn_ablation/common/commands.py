"""The process around a command: interruption, output that nobody takes, and the user's mistakes as one message.

Light on purpose: a command's module loads it first and calls `leave_when_interrupted`; from then on Ctrl-C leaves no
traceback.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys

TYPE_CHECKING = False  # without `typing`, which takes longer to import than all else here: Ctrl-C is heeded sooner
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130
NOT_READ = 1
"""Nobody takes the output any more."""

_PACKAGE, _SCRIPT = "cnn_ablation", "cnn-ablation"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_was_interrupted = False


def run_as_process(main: Callable[[], int]) -> NoReturn:
    """Runs a command as the whole work of this process, and ends it.

    The interpreter is not taken apart: with torch and pandas loaded that takes up to 3 seconds.
    """
    leave_when_interrupted()
    gc.set_threshold(100_000)  # imports make many objects that stay; looking for garbage among them costs a fifth
    sys.unraisablehook = _not_lost
    try:
        code = guarded(main)
    except SystemExit as ended:  # argparse
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        if not _was_interrupted:
            _end(1, show=sys.exc_info())
        code = INTERRUPTED  # a library has turned the interruption into an error of its own
    _end(code)


def guarded(main: Callable[[], int]) -> int:
    """The exit code of a command; what the user can mend is one message on stderr, without a traceback."""
    prepare_output()
    try:
        code = main()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output (`| head`) has left
        _drop_output()
        return NOT_READ
    except Exception as error:
        if _was_interrupted:  # a library has turned the interruption into an error of its own
            return INTERRUPTED
        explained = _explained(error)
        if explained is None:
            raise
        print(explained[0], file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # said once; what is left in the buffer would be said again
            _drop_output()
        return explained[1]


def typed() -> str:
    """This process's command as a person would type it again; empty where nobody typed one, as in a notebook.

    It names neither the interpreter's place nor that of the console script.
    """
    import shlex

    words = [word.encode(errors="replace").decode() for word in sys.orig_argv[1:]]
    for place, word in enumerate(words):
        if word == "-c" or "ipykernel" in word:
            break
        if word == "-m":
            return shlex.join(["python", *words[place:]]) if words[place + 1 : place + 2] == [_PACKAGE] else ""
        if os.path.basename(word) == _SCRIPT:
            return shlex.join([_SCRIPT, *words[place + 1 :]])
        if word.endswith(".py"):
            return shlex.join(["python", *words[place:]])
    return ""


def leave_when_interrupted() -> None:
    """From here on an interruption just ends this process: for the first line of a module that is run as a command.

    What that module imports then need not be light.
    """
    _handle(_leave)


def raise_when_interrupted() -> None:
    """From here on an interruption is a KeyboardInterrupt: there is something on disk to finish.

    Until then a process that we own just ends: nothing is lost, and no library that is being imported can swallow it.
    """
    if signal.getsignal(signal.SIGINT) is _leave or signal.getsignal(signal.SIGTERM) is _leave:
        _handle(_raise)


def prepare_output() -> None:
    """Output ends no command: what a console cannot print is a question mark there, a closed stream takes all."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # as Python leaves it where the shell has closed it: `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  for as long as the process runs
        elif hasattr(stream, "reconfigure"):  # a notebook's streams cannot
            stream.reconfigure(errors="replace")


def _handle(handler: Callable[[int, FrameType | None], NoReturn]) -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as shells set it for what they start in the background
            signal.signal(number, handler)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)


def _raise(_number: int, _frame: FrameType | None) -> NoReturn:
    """A terminated study leaves its table, as an interrupted one does."""
    global _was_interrupted  # noqa: PLW0603  a process is interrupted once
    _was_interrupted = True
    raise KeyboardInterrupt


def _not_lost(what: sys.UnraisableHookArgs) -> None:
    """An interruption that arrives where Python can raise nothing, as in a destructor, arrives again."""
    if what.exc_type is KeyboardInterrupt:
        from threading import Timer, main_thread

        is_heard = signal.getsignal(signal.SIGINT) != signal.SIG_IGN  # not in a shell's background: it was the other
        number = signal.SIGINT if is_heard else signal.SIGTERM
        Timer(0.01, signal.pthread_kill, [main_thread().ident, number]).start()
    else:
        sys.__unraisablehook__(what)


def _explained(error: Exception) -> tuple[str, int] | None:
    """(message, exit code) of what the user can mend; None for a mistake of ours."""
    from cnn_ablation.common.errors import UserError

    if isinstance(error, UserError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else ""), UserError.exit_code
    return None


def _drop_output() -> None:
    """Whatever is still written to stdout goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(code: int, show: tuple[object, ...] | None = None) -> NoReturn:
    _handle(_leave)
    if show:
        sys.excepthook(*show)  # type: ignore[arg-type]
    atexit._run_exitfuncs()  # what libraries clean up: logs, processes of launchers
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more, or the disk is full
            code = code or NOT_READ
    os._exit(code)
