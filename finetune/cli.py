"""YAML file and command line -> one dataclass.

The values of `--config file.yaml` become flags, which come before the flags of the command line. So the same checks
hold for a YAML value and a flag, and a flag overrides a YAML value.
"""

import argparse
import dataclasses
import difflib
import errno
import gc
import inspect
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from finetune.files import printable
from finetune.flag_help import HelpFormatter, group_flags

Config = TypeVar("Config")

_LARGEST = 2**18  # bytes of a run.yaml
_PATIENCE = 10.0  # seconds


def parse(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """Builds a `config_class` from `argv` (default: the arguments of the program).

    Raises:
        SystemExit: with status 2 and one sentence, for an unknown flag or key, and for a value of a wrong type or
            outside the choices.
    """
    from transformers import HfArgumentParser

    words = list(sys.argv[1:] if argv is None else argv)
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

    files, words = _take_config_flags(parser, words)
    known = {field.name for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        known |= {alias.removeprefix("--") for alias in field.metadata.get("aliases", ())}
    if files:
        folder = Path(str(sys.modules[config_class.__module__].__file__)).with_name("configs")
        try:
            words = [word for name in files for word in yaml_to_argv(config_file(name, folder), known)] + words
        except ValueError as error:
            parser.error(printable(str(error)))
    namespace, unknown = parser.parse_known_args(words)
    if unknown:
        flag = unknown[0].partition("=")[0]
        hint = did_you_mean(flag.lstrip("-").replace("-", "_"), known | {"config", "help"}, "--")
        parser.error(printable(f"unknown flag {flag}{hint or '; --help lists the flags'}"))
    values = vars(namespace)
    values.pop("config")
    return config_class(**values)


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
    return f"python {path.with_name(recipe)}.py" if path.parts[-2:-1] == ("recipes",) else None


def named_configs(folder: Path) -> list[str]:
    """The names that `--config` takes for the YAML files of a folder, such as `ner/wnut17`."""
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def config_file(name: str, folder: Path) -> Path:
    """The YAML file of that name, or the one with that name in `folder`.

    Raises:
        ValueError: if there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    inside = folder / f"{name.removesuffix('.yaml')}.yaml"
    if not inside.is_file() and not Path(name).exists():
        raise ValueError(f"--config {name}: No such file{did_you_mean(name, named_configs(folder))}")
    return inside if inside.is_file() else Path(name)


def yaml_to_argv(file: str | Path, known: set[str]) -> list[str]:
    """Turns the keys of a YAML file into words `--key=value`. A key with the value null keeps its default.

    Raises:
        ValueError: if the file cannot be read, is not a mapping of flags to plain values, or has a key that is not in
            `known`. The message names file and line.
    """
    return _to_argv(file, _compose(file), known)


def yaml_to_argvs(file: str | Path, key: str, known: set[str]) -> tuple[list[str], dict[str, list[str]]]:
    """As `yaml_to_argv`, for a file in which `key` has names with their own flags, or comma-separated names.

    Returns:
        The words for all, and the words of each name.
    """
    root = _compose(file)
    if not isinstance(root, yaml.MappingNode):
        return _to_argv(file, root, known), {}
    own: dict[str, list[str]] = {}
    for name, node in root.value:
        if name.value == key and isinstance(node, yaml.ScalarNode):
            own |= {inner.strip(): [] for inner in node.value.split(",")}
        elif name.value == key:
            if not isinstance(node, yaml.MappingNode):
                raise ValueError(f"{file}:{node.start_mark.line + 1}: {key} takes a mapping of names to flags")
            for inner, flags in node.value:
                empty = flags.tag == "tag:yaml.org,2002:null"
                own[inner.value] = [] if empty else _to_argv(file, flags, known)
    root.value = [(name, node) for name, node in root.value if name.value != key]
    return _to_argv(file, root, known), own


def yaml_to_argv_and(file: str | Path, key: str, known: set[str]) -> tuple[list[str], yaml.Node | None]:
    """As `yaml_to_argv`, for a file in which `key` holds something else than a flag.

    Returns:
        The words of the flags, and the YAML node of `key`, which knows its lines; None if the file has no such key.
    """
    root, found = _compose(file), None
    if isinstance(root, yaml.MappingNode):
        found = next((node for name, node in root.value if name.value == key), None)
        root.value = [(name, node) for name, node in root.value if name.value != key]
    return _to_argv(file, root, known), found


def read_settings(file: Path) -> dict[str, Any]:
    """The plain values of a YAML file, such as a run.yaml. The file may come from a stranger.

    Lists, mappings and aliases are left out. A run.yaml has none of them, and with aliases a file of some hundred
    bytes can become gigabytes.

    Raises:
        ValueError: naming the file, and the line if it is known.
    """
    if file.stat().st_size > _LARGEST:
        raise ValueError(f"{file}: too large for a file that a run writes")
    root = _compose(file, f"{file}")
    found: dict[str, Any] = {}
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode):
            try:
                found[key.value] = yaml.SafeLoader("").construct_object(value)
            except (ValueError, yaml.YAMLError) as error:
                where = f"{file}:{value.start_mark.line + 1}"
                raise ValueError(f"{where}: {key.value!r:.100} has the invalid value {value.value!r:.100}") from error
    return found


def _compose(file: str | Path, where: str = "") -> yaml.Node | None:
    where = where or f"--config {file}"
    try:
        return yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ValueError(f"{where}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: not a YAML file: {' '.join(str(error).split())[:300]}") from error


def _to_argv(file: str | Path, root: yaml.Node | None, known: set[str]) -> list[str]:
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(
            f"{file}:{root.start_mark.line + 1}: a config is a mapping of flags to values, like 'max_seq_length: 128'"
        )
    argv: list[str] = []
    seen: set[str] = set()
    for key, value in root.value:
        where = f"{file}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"{where}: the name of a flag must be a plain value")
        if key.value not in known:
            hint = did_you_mean(key.value.lstrip("-").replace("-", "_"), known) or "; --help lists the flags"
            raise ValueError(f"{where}: unknown flag {key.value!r}{hint}")
        if not isinstance(value, yaml.ScalarNode):
            raise ValueError(f"{where}: {key.value} takes one plain value")
        if key.value in seen:
            raise ValueError(f"{where}: {key.value} is given a second time")
        seen.add(key.value)
        # Take the text as it is written, because YAML would turn `eval_strategy: no` into a boolean.
        if value.tag != "tag:yaml.org,2002:null":
            infinite = value.tag == "tag:yaml.org,2002:float" and value.value.lower().endswith((".inf", ".nan"))
            argv.append(f"--{key.value}={value.value.replace('.', '') if infinite else value.value}")
    return argv


def to_yaml(config: Any) -> str:
    """The config as a YAML text that `--config` can read."""
    values = dataclasses.asdict(config)
    # For YAML these characters end a line, too, unless they are written as escapes.
    breaks = any(mark in value for value in values.values() if isinstance(value, str) for mark in "\x85\u2028\u2029")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=not breaks)


def did_you_mean(word: str, known: Iterable[str], before: str = "") -> str:
    """`; did you mean --seed?` for a word that is similar to a known word, else the empty string.

    Args:
        before: the text before the known word, such as `--`.
    """
    names = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.7)
    return f"; did you mean {before}{names[found[0]]}?" if found else ""


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
    except BrokenPipeError:  # the program that reads the output has ended; recipes/predict.py then ends quietly
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
