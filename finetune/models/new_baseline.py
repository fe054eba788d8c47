"""Makes a new recurrent baseline: its vocabulary, its word vectors, its weights."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModel, PreTrainedModel

from finetune.arguments import ModelArguments
from finetune.models.configuration import RecurrentConfig
from finetune.models.embeddings import (
    checkpoint_words,
    read_vectors,
    rows_of_words,
    standardised,
    vectors_from_checkpoint,
)
from finetune.models.names import BASELINES
from finetune.models.pretrained import load_config, load_pretrained, load_tokenizer, resolve
from finetune.models.reader import RecurrentForQuestionAnswering
from finetune.models.recurrent import RecurrentForSequenceClassification, RecurrentForTokenClassification
from finetune.models.tokenizers import WordTokenizer, add_words, tell_texts_apart, train_word_tokenizer

logger = logging.getLogger(__name__)

Task = Literal["token-classification", "sequence-classification", "question-answering"]

_MOST_LAYERS = 1000
_MOST_PARAMETERS = 10**9
_BASELINE: dict[Task, Any] = {
    "token-classification": RecurrentForTokenClassification,
    "sequence-classification": RecurrentForSequenceClassification,
    "question-answering": RecurrentForQuestionAnswering,
}


def new_baseline(
    task: Task,
    arguments: ModelArguments,
    names: dict[str, Any],
    words: Iterable[str],
    pooling: str,
    pairs: bool,
    head: str,
) -> tuple[PreTrainedModel, WordTokenizer]:
    """The baseline that `arguments` name, with a vocabulary of `words`, and its tokenizer.

    Args:
        names: the settings of its config about its labels.

    Raises:
        ValueError: naming the flag that is wrong.
    """
    for name in ("embedding_size", "hidden_size", "num_hidden_layers", "char_hidden_size", "min_word_frequency"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} {getattr(arguments, name)}: must be at least 1")
    if arguments.num_hidden_layers > _MOST_LAYERS:
        raise ValueError(
            f"--num_hidden_layers {arguments.num_hidden_layers}: a baseline has at most {_MOST_LAYERS:,} layers"
        )
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
    tokenizer = train_word_tokenizer(words, min_frequency=arguments.min_word_frequency, lowercase=lowercase)
    trained = len(tokenizer)
    add_words(tokenizer, (word.lower() for word in extra) if lowercase else extra)
    if pairs:
        tell_texts_apart(tokenizer)
    vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    vectors = vectors_of(vocabulary, trained) if vectors_of else None
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
        pairs=pairs,
        pad_token_id=tokenizer.pad_token_id,
        unk_token_id=tokenizer.unk_token_id,
        **names,
    )
    _check_size(config)
    model = _BASELINE[task](config)
    if vectors is not None:
        with torch.no_grad():
            model.encoder.embeddings.weight.copy_(vectors)
            model.encoder.embeddings.weight[config.pad_token_id] = 0.0
    return model, tokenizer


def _check_size(config: RecurrentConfig) -> None:
    """Refuses a baseline that is too large, before it fills the memory."""
    H, E, C = config.hidden_size, config.embedding_size, config.char_hidden_size
    directions, gates = 1 + config.bidirectional, {"rnn": 1, "gru": 3, "lstm": 4}[config.cell]
    characters = 4 * C * C if config.char_features == "bilstm" else 3 * config.char_embedding_size * C
    layers = E + C + H + (config.num_hidden_layers - 1) * (directions + 1) * H
    parameters = config.vocab_size * E + characters + directions * gates * H * layers
    if parameters > _MOST_PARAMETERS:
        name = max(("hidden_size", "embedding_size", "char_hidden_size"), key=lambda name: getattr(config, name))
        raise ValueError(
            f"--{name} {getattr(config, name)}: this baseline would have {parameters:,} parameters, and "
            f"{_MOST_PARAMETERS:,} are the most; give a smaller one"
        )


def _vectors(arguments: ModelArguments) -> tuple[list[str], Any]:
    """The words of --embeddings, and a function that makes the vectors.

    The function takes a vocabulary and the number of its words that come from the training split. It returns
    float32 (V, size).
    """
    source = arguments.embeddings
    if not source:
        return [], None
    if Path(source).is_file():
        words, table = read_vectors(source)

        def from_file(vocabulary: list[str], trained: int) -> torch.Tensor:
            rows, exact = rows_of_words(vocabulary, words)
            special = 3  # <pad>, <unk>, <sep>
            same, known = int(exact[special:trained].sum()), int((rows[special:trained] >= 0).sum())
            logger.warning(
                "--embeddings %s: of %d training words %d have a vector, %d have one in lower case or another case, "
                "%d have none and start at random",
                *(source, trained - special, same, known - same, trained - special - known),
            )
            missing = torch.full((1, table.shape[1]), float("nan"))
            return standardised(torch.cat([torch.from_numpy(table), missing])[torch.from_numpy(rows)])

        return words, from_file
    if not Path(source).is_dir() and source.endswith((".txt", ".vec", ".bin", ".gz")):
        raise ValueError(f"--embeddings {source}: no such file")
    tokenizer = load_tokenizer(source, flag="--embeddings")
    path, revision = resolve(source), arguments.model_revision
    config = load_config(path, source, revision, flag="--embeddings")
    model = load_pretrained(AutoModel, path, revision, config=config, head="saved")
    weights = model.get_input_embeddings().weight.detach()
    return checkpoint_words(tokenizer), lambda vocabulary, trained: standardised(
        vectors_from_checkpoint(vocabulary, tokenizer, weights)
    )
