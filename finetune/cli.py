"""YAML file and command line -> one dataclass.

The values of `--config file.yaml` become flags, which come before the flags of the command line. So the same checks
hold for a YAML value and a flag, and a flag overrides a YAML value.
"""

import argparse
import dataclasses
import errno
import gc
import inspect
import io
import logging
import os
import select
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from finetune.config_files import config_file, read_settings, yaml_to_argv
from finetune.files import printable
from finetune.flag_help import HelpFormatter, group_flags
from finetune.spelling import did_you_mean

Config = TypeVar("Config")
Section = TypeVar("Section")

_PATIENCE = 10.0  # seconds
# Names that other programs use -> the flag here.
_ALSO = {
    "epochs": "num_train_epochs",
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "model": "model_name_or_path",
    "max_length": "max_seq_length",
}
# Flags of TrainingArguments that say where and in which precision it computes.
_OF_ACCELERATE = {
    "fp16": "--mixed_precision fp16",
    "bf16": "--mixed_precision bf16",
    "no_cuda": "--cpu",
    "use_cpu": "--cpu",
}


def parse(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """Builds a `config_class` from `argv` (default: the arguments of the program).

    Raises:
        SystemExit: with status 2 and one sentence, for an unknown flag or key, and for a value of a wrong type or
            outside the choices.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = parser_of(config_class)
    files, words = _take_config_flags(parser, words)
    known = {field.name for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        known |= {alias.removeprefix("--") for alias in field.metadata.get("aliases", ())}
    if files:
        folder = Path(str(sys.modules[config_class.__module__].__file__)).with_name("configs")
        try:
            check = partial(_check_value, parser)
            words = [word for name in files for word in yaml_to_argv(config_file(name, folder), known, check)] + words
        except ValueError as error:
            parser.error(printable(str(error)))
    namespace, unknown = parser.parse_known_args(words)
    if unknown:
        flag = unknown[0].partition("=")[0]
        name = flag.lstrip("-").replace("-", "_")
        if name in _OF_ACCELERATE:
            hint = f"; that belongs to Accelerate: accelerate launch {_OF_ACCELERATE[name]} ..."
        elif _ALSO.get(name) in known:
            hint = f"; did you mean --{_ALSO[name]}?"
        else:
            hint = did_you_mean(name, known | {"config", "help"}, "--")
        parser.error(printable(f"unknown flag {flag}{hint or '; --help lists the flags'}"))
    values = vars(namespace)
    values.pop("config")
    return config_class(**values)


def _check_value(parser: argparse.ArgumentParser, word: str) -> None:
    """Raises ValueError if the value of a `--flag=value` is not one of this flag."""
    before, parser.exit_on_error = parser.exit_on_error, False
    try:
        parser.parse_known_args([word])
    except argparse.ArgumentError as error:
        raise ValueError(error.message) from error
    finally:
        parser.exit_on_error = before


def parser_of(config_class: type) -> argparse.ArgumentParser:
    """The parser of a recipe: a flag for each field of its config, and `--config`."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser(
        config_class,  # type: ignore[arg-type]  # a dataclass
        prog=program(),
        description=(sys.modules[config_class.__module__].__doc__ or "").strip(),
        usage="%(prog)s [--config FILE.yaml] [--flag value ...]   (--help lists the flags)",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        metavar="FILE.yaml",
        help="Flags from a YAML file, or from a config of the recipes by its name (ner/wnut17); others override it.",
    )
    group_flags(parser, config_class)
    return parser


def program() -> str:
    """The command that started this program: `finetune ner`, or `ner.py`."""
    path = Path(sys.argv[0])
    if (path.name == "finetune" or path.parts[-2:] == ("recipes", "__main__.py")) and len(sys.argv) > 1:
        return f"finetune {sys.argv[1]}"
    return path.name


def command(recipe: str) -> str | None:
    """The command that starts another recipe in the same way as this one; None if it was called from Python."""
    path = Path(sys.argv[0])
    if path.name == "finetune":
        return f"finetune {recipe}"
    if path.parts[-2:] == ("recipes", "__main__.py"):
        return f"python -m recipes {recipe}"
    beside = path.with_name(f"{recipe}.py")  # another folder may be called `recipes`, too
    return f"python {beside}" if path.parts[-2:-1] == ("recipes",) and beside.is_file() else None


def parse_with_section(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    folder: Path,
    read: Callable[[Path], tuple[list[str], Section]],
) -> tuple[argparse.Namespace, list[str], list[str], list[Section]]:
    """The options of a parser whose other words are flags of a recipe. Its `--config` files have a section, too.

    Args:
        parser: has an option `--config` that may be given several times.
        folder: where configs are found by their names.
        read: the words of the flags in a file, and its section.

    Returns:
        The options, the other words of the files, those of the command line, and the sections.
    """
    words = [_with_underscores(word) for word in (sys.argv[1:] if argv is None else argv)]
    from_files: list[str] = []
    sections: list[Section] = []
    try:
        for name in parser.parse_known_args(words)[0].config:
            more, section = read(config_file(name, folder))
            from_files += more
            sections.append(section)
    except ValueError as error:
        parser.error(printable(str(error)))
    # The command line comes last: if a flag is given twice, the last one counts.
    options, _ = parser.parse_known_args(from_files + words)
    (_, from_files), (_, words) = (parser.parse_known_args(some) for some in (from_files, words))
    return options, from_files, words, sections


def _with_underscores(word: str) -> str:
    """`--learning-rate` is `--learning_rate`, as for the recipes."""
    name, sign, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + sign + value if name.startswith("--") else word


def _take_config_flags(parser: Any, words: list[str]) -> tuple[list[str], list[str]]:
    """The files of all `--config` flags (a later file overrides an earlier one), and the other words."""
    files: list[str] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--config":
            files.append(next(rest, ""))
            if not files[-1]:
                parser.error("argument --config: expected a file")
        elif word.startswith("--config="):
            files.append(word.removeprefix("--config="))
        else:
            others.append(word)
    return files, others


def run(recipe: Callable[[Any], Any], config: Any) -> Any:
    """Calls a recipe function. A mistake that the user can correct becomes one line on standard error, and status 1.

    Ctrl-C exits with status 130. SIGTERM during training exits with 143, by a SystemExit of the recipe. In Python,
    call the recipe function itself to get the exception with its traceback.
    """
    _start_missing_processes()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a label must not end a run because a terminal cannot show it
        sys.stdout.reconfigure(errors="backslashreplace")
    for handler in (logging.lastResort, *logging.getLogger("transformers").handlers):
        if handler is not None:
            handler.addFilter(_clean)
    try:
        _check_launch_file()
        result = inspect.unwrap(recipe)(config)  # messages name flags here
        _end_processes()
        return result
    except (ValueError, FloatingPointError, MemoryError) as error:
        _let_the_first_process_speak()
        raise SystemExit(printable(f"error: {error}")) from error
    except BrokenPipeError:
        leave_if_nobody_reads()
        raise
    except OSError as error:  # a full disk, no permission, no connection
        place = error.filename
        if (
            place is None
            and error.errno in (errno.ENOSPC, errno.EDQUOT)
            and error.strerror == os.strerror(error.errno)
        ):
            place = getattr(config, "output_dir", None) or getattr(config, "output_file", None)
        _let_the_first_process_speak()
        sentence = f"error: {f'{place}: ' if place is not None else ''}{error.strerror or error}"
        raise SystemExit(printable(sentence)) from error
    except KeyboardInterrupt as interrupt:
        raise SystemExit(130) from interrupt


def leave_if_nobody_reads() -> None:
    """Ends this program with status 1 and without a word if the program that reads its output has ended.

    To be called after a BrokenPipeError, which may also come from another pipe.
    """
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)  # it tells errors alone
    if output.poll(0):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _clean(record: logging.LogRecord) -> bool:
    """A filter for log lines, because they may contain text from files."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


def _let_the_first_process_speak() -> None:
    """Lets the first process print its error before the others print theirs.

    Usually all processes fail for the same reason, and one message is enough. The others wait here. When the first
    process has ended, the launcher ends them. If only another process has failed, it prints its error after the wait.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(_PATIENCE)


def turn_bars_off() -> Callable[[], None]:
    """Turns off the progress bars of transformers, which would disturb ours. Returns a function to restore them."""
    from transformers.utils import logging as transformers_logging

    def put_back() -> None:
        if before:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns if an environment variable turns off the Hub's bars
                transformers_logging.enable_progress_bar()

    before = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    return put_back


def _end_processes() -> None:
    """Leaves the process group, and ends the threads that communicate with the other processes.

    If such a thread needs Python's lock while the interpreter is ending, the process is aborted. The threads end with
    their group. The group ends when nothing refers to it, so first collect garbage, such as a wrapped model.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


def _launched() -> argparse.Namespace | None:
    """The flags of the `accelerate launch` that started this process; None if something else started it."""
    import psutil  # a dependency of accelerate

    try:
        words = psutil.Process().parent().cmdline()
    except psutil.Error:
        return None
    if not any("accelerate" in word for word in words):
        return None
    launcher = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    launcher.add_argument("--num_processes", "--num-processes", type=int)
    launcher.add_argument("--config_file", "--config-file")
    launcher.add_argument("--cpu", "--use_cpu", "--use-cpu", action="store_true")
    return launcher.parse_known_args(words[: _index(words, _module() or sys.argv[0])])[0]


def _module() -> str | None:
    """The module that `python -m` was given; None for a script."""
    spec = sys.modules["__main__"].__spec__
    return None if spec is None else spec.name.removesuffix(".__main__")


def _start_missing_processes() -> None:
    """Starts as many processes on a CPU as the user asked for.

    `accelerate launch --cpu --num_processes 2` starts only one process, without a message (accelerate issue 2741).
    The same happens if a `--config_file` asks for several. This process then becomes torch's launcher and starts
    them.
    """
    if "WORLD_SIZE" in os.environ or os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true":
        return
    launched = _launched()
    if launched is None:
        return
    asked = launched.num_processes or 1
    if launched.num_processes is None and launched.config_file is not None:
        asked = int(read_settings(Path(launched.config_file)).get("num_processes", 1))
    if asked > 1:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={asked}",
        ]
        module = _module()
        sys.stdout.flush()
        os.execv(sys.executable, command + (sys.argv if module is None else ["-m", module, *sys.argv[1:]]))


def _check_launch_file() -> None:
    """Raises ValueError for a launch file for GPUs on a machine without one. It would run on the CPU silently."""
    launched = _launched() if "ACCELERATE_MIXED_PRECISION" in os.environ else None  # accelerate launch sets it
    if launched is None or launched.config_file is None or launched.cpu:
        return
    if read_settings(Path(launched.config_file)).get("use_cpu") is not False:
        return
    import torch

    if not torch.accelerator.is_available():
        raise ValueError(
            f"--config_file {launched.config_file}: this launch file is for GPUs (use_cpu: false), but torch finds "
            "none here; give recipes/configs/accelerate/cpu.yaml, or add --cpu to accelerate launch"
        )


def _index(words: list[str], word: str) -> int:
    return words.index(word) if word in words else len(words)
