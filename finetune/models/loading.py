"""Loads the model that `--model_name_or_path` names, with the right head, and its tokenizer.

Transformers and recurrent baselines are treated differently only here.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from finetune.arguments import ModelArguments
from finetune.models.attention import run_without_padding
from finetune.models.configuration import EncoderCrfConfig, RecurrentConfig, labels_of
from finetune.models.crf import EncoderCrfForTokenClassification, token_starts_word
from finetune.models.names import is_new_baseline
from finetune.models.new_baseline import Task, new_baseline
from finetune.models.pretrained import load_config, load_pretrained, load_tokenizer, resolve
from finetune.models.seq2seq_arguments import Seq2SeqModelArguments
from finetune.models.seq2seq_loading import load_seq2seq
from finetune.models.spans import answer_within_passage
from finetune.models.tokenizer_fit import check_tokenizer, position_limit, suit_tokenizer
from finetune.models.two_tokenizers import load_tokenizers

logger = logging.getLogger(__name__)

_AUTO = {
    "token-classification": AutoModelForTokenClassification,
    "sequence-classification": AutoModelForSequenceClassification,
    "question-answering": AutoModelForQuestionAnswering,
}
_LONGER: dict[Task, str] = {
    "token-classification": "longer sentences go into windows by themselves",
    "sequence-classification": "longer texts are cut",
    "question-answering": "longer passages go into windows by themselves",
}
_TEXT_TO_TEXT = ("ForSeq2Seq", "EncoderDecoderModel")
_ARCHITECTURE: dict[Task, str] = {
    "token-classification": "ForTokenClassification",
    "sequence-classification": "ForSequenceClassification",
    "question-answering": "ForQuestionAnswering",
}


def load(
    task: Task,
    arguments: ModelArguments,
    labels: Sequence[str],
    *,
    words: Iterable[str],
    max_seq_length: int,
    head: Literal["linear", "crf"] = "linear",
    pooling: str = "attention",
    pairs: bool = False,
    start: Sequence[float] | None = None,
) -> tuple[PreTrainedModel, Any]:
    """A model for `task` in float32, with `id2label` and `label2id` set, and its tokenizer.

    Args:
        words: the training split's words or texts; a baseline's vocabulary is made from them.
        max_seq_length: the longest input to come.
        head: for token classification with a transformer, a CRF instead of the softmax.
        pooling: for sequence classification with a baseline: mean, max, last, attention.
        pairs: for sequence classification: the inputs are pairs of texts. A new baseline reads each text alone.
        start: the bias of a new head's last layer, a number for each output. The training begins at it, not at 0.

    Raises:
        ValueError: naming the flag, for a checkpoint that cannot be loaded whole, has no fast tokenizer, or
            has fewer positions than `max_seq_length`.
    """
    id2label = dict(enumerate(labels))
    names = {"id2label": id2label, "label2id": {label: i for i, label in id2label.items()}}
    if task == "question-answering":
        names = {}
    if is_new_baseline(arguments.model_name_or_path):
        names = names and names | {"problem_type": _problem(labels)}
        baseline, tokenizer = new_baseline(task, arguments, names, words, pooling, pairs, head)
        _start_at(baseline, start)
        return (answer_within_passage(baseline) if task == "question-answering" else baseline), tokenizer
    path = resolve(arguments.model_name_or_path)
    config = load_config(path, arguments.model_name_or_path, arguments.model_revision)
    tokenizer = load_tokenizer(
        arguments.tokenizer_name or arguments.model_name_or_path,
        arguments.model_revision,
        for_words=task == "token-classification",
        flag="--tokenizer_name" if arguments.tokenizer_name else "--model_name_or_path",
    )
    if getattr(config, "pairs", False) and not pairs:
        raise ValueError(
            f"--model_name_or_path {arguments.model_name_or_path}: this baseline reads pairs of texts; give the "
            "second texts with --text_pair_column_name"
        )
    if head == "crf" and config.model_type == RecurrentConfig.model_type and not config.crf:
        raise ValueError(
            f"--head crf: {arguments.model_name_or_path} is a baseline that was saved without a CRF; start a new "
            "one, such as bilstm-crf"
        )
    kept = config.id2label
    if names:
        config.update(names | {"problem_type": config.problem_type or _problem(labels)})
    if head == "crf" and config.model_type not in (EncoderCrfConfig.model_type, RecurrentConfig.model_type):
        model: Any = _load_crf(path, arguments, config, tokenizer, names)
    else:
        model = _load_with_head(task, path, arguments, config, kept, labels, start)
    limit = position_limit(model)
    if limit is not None and max_seq_length > limit:
        raise ValueError(
            f"--max_seq_length {max_seq_length}: {arguments.model_name_or_path} has positions for {limit} tokens; "
            f"give at most {limit}; {_LONGER[task]}"
        )
    suit_tokenizer(tokenizer, model)
    encoder = model.encoder if isinstance(model, EncoderCrfForTokenClassification) else model
    check_tokenizer(tokenizer, encoder, arguments.model_name_or_path)
    if arguments.padding_free:
        run_without_padding(encoder)
    if task == "question-answering":
        answer_within_passage(model)
    return model, tokenizer


def _load_with_head(
    task: Task,
    path: str,
    arguments: ModelArguments,
    config: Any,
    kept: Mapping[int, str],
    labels: Sequence[str],
    start: Sequence[float] | None,
) -> Any:
    """The checkpoint with its own head if that is for the same labels, else with a new one, which a line says.

    Args:
        config: with the new labels.
        kept: the labels of the checkpoint.
    """
    saved = str((config.architectures or [""])[0])
    of_labels = task != "question-answering"
    continued = saved.endswith(_ARCHITECTURE[task]) and (not of_labels or kept == dict(enumerate(labels)))
    if "Classification" in saved and of_labels and not continued:
        logger.warning(
            "%s: its head is not used (%s for %s); a new one starts for %s",
            *(arguments.model_name_or_path, saved, ", ".join(map(str, kept.values())), ", ".join(labels)),
        )
    model = load_pretrained(
        _AUTO[task], path, arguments.model_revision, config=config, head="saved" if continued else "new"
    )
    if not continued:
        _start_at(model, start)
    return model


def _start_at(model: PreTrainedModel, start: Sequence[float] | None) -> None:
    if start is None:
        return
    heads = (child for name, child in model.named_children() if name != model.base_model_prefix)
    layers = [part for head in heads for part in head.modules() if isinstance(part, torch.nn.Linear)]
    if layers and layers[-1].bias is not None:
        layers[-1].bias.data.copy_(torch.tensor(start))


def load_finetuned(
    arguments: ModelArguments, *, max_seq_length: int | None = None
) -> tuple[Task | Literal["text-to-text"], list[str], PreTrainedModel, Any]:
    """A fine-tuned model as it was saved, in float32, and its tokenizer.

    Returns:
        What it was trained for, its labels, the model, the tokenizer; of text to text, both tokenizers.

    Raises:
        ValueError: as `load`, and for a model that labels neither words nor texts, nor answers questions.
    """
    name = arguments.model_name_or_path
    task, labels, config = described(name, arguments.model_revision)
    if task == "text-to-text":
        return task, [], *_load_text_to_text(arguments)
    length, pairs = max_seq_length or 1, getattr(config, "pairs", False)
    return task, labels, *load(task, arguments, labels, words=(), max_seq_length=length, pairs=pairs)


def described(
    name: str, revision: str = "main", flag: str = "--model_name_or_path"
) -> tuple[Task | Literal["text-to-text"], list[str], Any]:
    """What a saved model was trained for, its labels, and its config. The weights are not loaded.

    Raises:
        ValueError: naming `flag`, as `load_finetuned`.
    """
    if is_new_baseline(name):
        raise ValueError(f"{flag} {name}: an untrained baseline; give the folder of a run")
    config = load_config(resolve(name), name, revision, flag)
    saved = (config.architectures or ["nothing"])[0]
    if saved.endswith(_TEXT_TO_TEXT):
        return "text-to-text", [], config
    task = next((task for task, ending in _ARCHITECTURE.items() if saved.endswith(ending)), None)
    if task is None:
        other = "use finetune.generate" if saved.endswith("CausalLM") else "fine-tune it for words or for texts first"
        raise ValueError(f"{flag} {name}: holds {saved}; {other}")
    return task, labels_of(config), config


def _load_text_to_text(arguments: ModelArguments) -> tuple[PreTrainedModel, Any]:
    name, revision = arguments.model_name_or_path, arguments.model_revision
    own = Seq2SeqModelArguments(name, revision, padding_free=arguments.padding_free)
    sides = load_tokenizers(name, revision)
    return load_seq2seq(own, sides.source, sides.target), sides


def load_as_saved(name: str, *, for_words: bool = True, flag: str = "--model_name_or_path") -> tuple[Any, Any]:
    """A model in float32 with the head that it was saved with, and its tokenizer; of text to text, both tokenizers.

    Unknown heads are left out.

    Raises:
        ValueError: if a part does not load; messages use `flag` for `name`.
    """
    path = resolve(name)
    config = load_config(path, name, "main", flag)
    saved = str((config.architectures or [""])[0])
    if saved.endswith(_TEXT_TO_TEXT):
        model, sides = _load_text_to_text(ModelArguments(name))
        return model.eval(), sides
    auto = next((_AUTO[task] for task, ending in _ARCHITECTURE.items() if saved.endswith(ending)), AutoModel)
    model = load_pretrained(auto, path, "main", config=config, head="saved")
    tokenizer = load_tokenizer(name, for_words=for_words, flag=flag)
    check_tokenizer(tokenizer, model.encoder if isinstance(model, EncoderCrfForTokenClassification) else model, name)
    return model.eval(), tokenizer


def _problem(labels: Sequence[Any]) -> str:
    """The problem type of a model with these labels, until `set_loss` changes it. A single output is a number."""
    return "single_label_classification" if len(labels) > 1 else "regression"


def _load_crf(
    path: str, arguments: ModelArguments, config: Any, tokenizer: Any, names: dict[str, Any]
) -> EncoderCrfForTokenClassification:
    left_out = ("id2label", "label2id", "_name_or_path")  # the last is a path of this machine
    settings = {key: value for key, value in config.to_dict().items() if key not in left_out}
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
    encoder = load_pretrained(AutoModel, path, arguments.model_revision, config=config, head="saved")
    model.encoder.load_state_dict(encoder.state_dict(), strict=False)
    starts = token_starts_word(tokenizer)
    model.get_buffer("starts_word")[: len(starts)] = starts
    return model
