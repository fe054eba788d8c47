"""YAML files of flags: the configs of the recipes, and the run.yaml of a run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from finetune.spelling import did_you_mean

_LARGEST = 2**18  # bytes of a run.yaml


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


def yaml_to_argv(file: str | Path, known: set[str], check: Callable[[str], None] | None = None) -> list[str]:
    """Turns the keys of a YAML file into words `--key=value`. A key with the value null keeps its default.

    Args:
        check: is called with each word. It raises ValueError for a wrong value.

    Raises:
        ValueError: if the file cannot be read, is not a mapping of flags to plain values, or has a key that is not in
            `known`, or a wrong value. The message names file and line.
    """
    return _to_argv(file, _compose(file), known, check)


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


def _to_argv(
    file: str | Path, root: yaml.Node | None, known: set[str], check: Callable[[str], None] | None = None
) -> list[str]:
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
            try:
                if check is not None:
                    check(argv[-1])
            except ValueError as error:
                raise ValueError(f"{where}: {key.value}: {error}") from error
    return argv


def to_yaml(config: Any) -> str:
    """The config as a YAML text that `--config` can read."""
    values = dataclasses.asdict(config)
    # For YAML these characters end a line, too, unless they are written as escapes.
    breaks = any(mark in value for value in values.values() if isinstance(value, str) for mark in "\x85\u2028\u2029")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=not breaks)
