"""Whatever a config file holds, it is taken or refused in one sentence; what is written is taken back."""

import dataclasses
import typing

import pytest
import yaml
from damage import fuzz, refused
from hypothesis import example, given
from hypothesis import strategies as st

from finetune import cli, config_files
from recipes.ner import NerConfig
from recipes.pretrain import PretrainConfig

KNOWN = {field.name for field in dataclasses.fields(NerConfig)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "a.yaml"


PIECES = ["seed", ": ", ":", "1", "\n", "  ", "- ", "? ", "! ", "!!int ", "!!python/name:os.system ", "&a ", "*a"]
PIECES += ["[", "]", "{", "}", ",", "'", '"', "|\n", ">\n", "#", "---\n", "...\n", "%YAML 9.9\n", "<<", "~", "null"]
PIECES += ["head", "crf", "no", "\t", "@", "`", "\ufeff", "\x07", "--", "="]
YAML = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from(PIECES), max_size=20).map(lambda parts: "".join(parts).encode()),
    st.dictionaries(
        st.sampled_from(sorted(KNOWN)) | st.text(max_size=4),
        st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), st.lists),
        max_size=4,
    ).map(lambda values: yaml.safe_dump(values).encode()),
)


@fuzz(60)
@given(content=YAML)
@example(content=b"? [a]\n: 1\n")
@example(content=b"[" * 1200)
@example(content=b"&a [*a]: 1")
@example(content=b"seed: 1\nseed: 2\n")
def test_any_config(path, content):
    path.write_bytes(content)
    try:
        words = config_files.yaml_to_argv(path, KNOWN)
    except ValueError as error:
        refused(path, error)
        return
    assert all(word.startswith("--") for word in words)
    status: object = 0
    try:
        cli.parse(NerConfig, ["--config", str(path)])
    except SystemExit as error:
        status = error.code
    assert status in (0, 2)


def values(kind: object) -> st.SearchStrategy:
    """Values of a flag's type."""
    options = typing.get_args(kind)
    if type(None) in options:
        return st.none() | st.one_of([values(option) for option in options if option is not type(None)])
    if options:
        return st.sampled_from(options)
    if kind is float:
        return st.floats(allow_nan=False)
    return {bool: st.booleans(), int: st.integers(), str: st.text(max_size=12)}[kind]  # type: ignore[index]


@pytest.mark.parametrize("config_class", [NerConfig, PretrainConfig])
@fuzz(20)
@given(choices=st.data())
def test_what_is_written_is_taken_back(path, config_class, choices):
    kinds = typing.get_type_hints(config_class)
    fields = choices.draw(st.lists(st.sampled_from(sorted(kinds)), max_size=8, unique=True))
    given_config = config_class(**{name: choices.draw(values(kinds[name]), label=name) for name in fields})
    path.write_text(config_files.to_yaml(given_config), encoding="utf-8")
    assert cli.parse(config_class, ["--config", str(path)]) == given_config
