"""A smaller vocabulary for a checkpoint: the pieces that a corpus uses.

XLM-R base has 278 million parameters. 192 million of them are in its embedding, and a single corpus never looks up
most of its rows.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModel, PreTrainedModel

from finetune.files import match_modes
from finetune.models.attention import KINDS
from finetune.models.pretrained import load_config, load_pretrained, load_tokenizer, resolve
from finetune.models.tokenizer_fit import first_position, suit_tokenizer

_BYTE = re.compile("<0x[0-9A-F]{2}>")  # pieces for characters that have no other piece
_AT_ONCE = 2000  # texts tokenised together
_OF_VOCABULARY = ("word_embeddings.weight", "decoder.weight", "decoder.bias", "predictions.bias", "lm_head.bias")


def trim_vocabulary(
    checkpoint: str, corpus: str | Path | Iterable[str], output_dir: str | Path, *, revision: str = "main"
) -> Path:
    """Writes a BERT, RoBERTa or XLM-R that has only those pieces of its tokenizer that `corpus` uses.

    The tokenizer may be WordPiece, BPE or Unigram. The corpus is tokenised as before, and the hidden states are the
    same. The special tokens and the single characters of the corpus are kept too, so that new words of these letters
    have pieces. The head is kept, and its projection to the vocabulary is trimmed together with the embedding.

    Args:
        checkpoint: a folder or a Hub id.
        corpus: a text file, or texts; they are read twice, so no generator.
        output_dir: a folder that does not exist yet or is empty.

    Returns:
        `output_dir`.

    Raises:
        ValueError: if the corpus is a generator, is empty or does not exist, if the folder is not empty, or for
            another kind of model or tokenizer.
    """
    if isinstance(corpus, Iterator):
        raise ValueError("corpus: a generator is used up after the first reading; give a list or a file")
    output_dir = Path(output_dir)
    if output_dir.exists() and any(output_dir.iterdir()):
        raise ValueError(f"{output_dir}: this folder is not empty; give another")
    if isinstance(corpus, (str, Path)) and not Path(corpus).is_file():
        raise ValueError(f"corpus {corpus}: no such file")
    path = resolve(checkpoint)
    model = _model(path, revision)
    if model.config.model_type not in KINDS:
        raise ValueError(
            f"{checkpoint}: model type {model.config.model_type}; only {', '.join(KINDS)} can be trimmed"
        )
    tokenizer = load_tokenizer(checkpoint, revision, for_words=False, flag="checkpoint")
    backend = _plain(tokenizer)
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    # RoBERTa and XLM-R count positions from the padding id, so this id must not change.
    kept = sorted({*_kept(backend, definition, _texts(corpus)), *range(first_position(model))})
    new_id = {old: new for new, old in enumerate(kept)}

    vocab_size = model.get_input_embeddings().num_embeddings
    rows = torch.tensor(kept)
    state = {
        name: value[rows].clone() if name.endswith(_OF_VOCABULARY) and value.shape[0] == vocab_size else value
        for name, value in model.state_dict().items()
    }
    config = model.config
    config.vocab_size = len(kept)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id", "mask_token_id"):
        if getattr(config, name, None) in new_id:
            setattr(config, name, new_id[getattr(config, name)])
    trimmed = type(model)(config)
    trimmed.load_state_dict(state)
    suit_tokenizer(tokenizer, trimmed)
    trimmed.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    trimmed_definition = json.dumps(_renumbered(definition, new_id), ensure_ascii=False)
    (output_dir / "tokenizer.json").write_text(trimmed_definition, encoding="utf-8")
    match_modes(output_dir)
    _check(backend, _plain(load_tokenizer(str(output_dir), for_words=False)), new_id, _texts(corpus))
    return output_dir


def _texts(corpus: str | Path | Iterable[str]) -> Iterator[list[str]]:
    """The texts, some at a time."""
    if isinstance(corpus, (str, Path)):
        with Path(corpus).open(encoding="utf-8-sig") as file:
            yield from _parts(line.rstrip("\n") for line in file)
    else:
        yield from _parts(corpus)


def _parts(texts: Iterable[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for text in texts:
        part.append(text)
        if len(part) == _AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _plain(tokenizer: Any) -> Tokenizer:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    return backend


def _kept(backend: Tokenizer, definition: dict[str, Any], parts: Iterator[list[str]]) -> list[int]:
    """The ids to keep, in their order."""
    kind = definition["model"]["type"]
    if kind not in ("WordPiece", "BPE", "Unigram"):
        raise ValueError(f"a {kind} tokenizer cannot be trimmed; WordPiece, BPE and Unigram can")
    vocabulary: dict[str, int] = backend.get_vocab()
    unknown = definition["model"].get("unk_token")
    used = {token["id"] for token in definition["added_tokens"]}
    letters: set[str] = set()
    empty = True
    for texts in parts:
        for text, encoding in zip(texts, backend.encode_batch(texts), strict=True):
            empty = False
            used.update(encoding.ids)
            normalized = backend.normalizer.normalize_str(text) if backend.normalizer else text
            letters.update(normalized)
            if kind == "WordPiece" and unknown in encoding.tokens:
                # Keep all pieces of a word that could not be cut: without one of them, it might be cut into others.
                for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized):
                    if len(word) <= definition["model"]["max_input_chars_per_word"] and unknown in [
                        token.value for token in backend.model.tokenize(word)
                    ]:
                        used.update(_parts_of(word, vocabulary))
    if empty:
        raise ValueError("corpus: no text in it")
    for letter in letters:
        used.update(vocabulary[piece] for piece in (letter, f"##{letter}", f"▁{letter}") if piece in vocabulary)
    if kind == "BPE":
        used |= _merged_from(definition["model"], vocabulary, used)
        alphabet = {piece for piece in vocabulary if len(piece) == 1}
        used.update(vocabulary[piece] for piece in alphabet)
    elif kind == "Unigram":
        pieces = definition["model"]["vocab"]
        # The cost of an unknown character depends on the lowest score of all pieces, so that piece stays.
        used.add(min(range(len(pieces)), key=lambda i: pieces[i][1]))
        if definition["model"]["unk_id"] is not None:
            used.add(definition["model"]["unk_id"])
    if unknown in vocabulary:
        used.add(vocabulary[unknown])
    if definition["model"].get("byte_fallback"):
        used.update(i for piece, i in vocabulary.items() if _BYTE.fullmatch(piece))
    return sorted(used)


def _parts_of(word: str, vocabulary: dict[str, int]) -> set[int]:
    """Every piece that a WordPiece tokenizer might find in a word."""
    ends = range(1, len(word) + 1)
    pieces = {word[i:j] if i == 0 else f"##{word[i:j]}" for j in ends for i in range(j)}
    return {vocabulary[piece] for piece in pieces if piece in vocabulary}


def _merged_from(model: dict[str, Any], vocabulary: dict[str, int], used: set[int]) -> set[int]:
    """The pieces that the used ones are merged from, step by step."""
    made_of: dict[str, list[tuple[str, str]]] = {}
    for left, right in model["merges"]:
        made_of.setdefault(left + right, []).append((left, right))
    piece_of = {i: piece for piece, i in vocabulary.items()}
    found, todo = set(used), [piece_of[i] for i in used]
    while todo:
        for pair in made_of.get(todo.pop(), []):
            for piece in pair:
                if vocabulary[piece] not in found:
                    found.add(vocabulary[piece])
                    todo.append(piece)
    return found


def _renumbered(definition: dict[str, Any], new_id: dict[int, int]) -> dict[str, Any]:
    """The tokenizer.json with the kept pieces under their new ids."""
    model = dict(definition["model"])
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in new_id if old < len(model["vocab"])]
        if model["unk_id"] is not None:
            model["unk_id"] = new_id[model["unk_id"]]
    else:
        model["vocab"] = {piece: new_id[old] for piece, old in model["vocab"].items() if old in new_id}
    if model["type"] == "BPE":
        kept = model["vocab"]
        model["merges"] = [
            [left, right] for left, right in model["merges"] if {left, right, left + right} <= kept.keys()
        ]
    added = [token | {"id": new_id[token["id"]]} for token in definition["added_tokens"]]
    return definition | {
        "model": model,
        "added_tokens": added,
        "post_processor": _renumbered_processor(definition["post_processor"], new_id),
        "padding": None,
        "truncation": None,
    }


def _renumbered_processor(processor: dict[str, Any] | None, new_id: dict[int, int]) -> dict[str, Any] | None:
    if processor is None or processor["type"] == "ByteLevel":
        return processor
    if processor["type"] == "Sequence":
        return processor | {"processors": [_renumbered_processor(part, new_id) for part in processor["processors"]]}
    if processor["type"] == "TemplateProcessing":
        special = {
            name: token | {"ids": [new_id[old] for old in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
        return processor | {"special_tokens": special}
    if "cls" in processor:  # BERT's and RoBERTa's own kinds
        return processor | {key: [processor[key][0], new_id[processor[key][1]]] for key in ("cls", "sep")}
    raise ValueError(f"a tokenizer with the post-processor {processor['type']} cannot be trimmed")


def _model(path: str, revision: str) -> Any:
    """The checkpoint with the head that it has."""
    config = load_config(path, path, revision, flag="checkpoint")
    named = getattr(transformers, str((config.architectures or [""])[0]), None)
    model_class = named if isinstance(named, type) and issubclass(named, PreTrainedModel) else AutoModel
    return load_pretrained(model_class, path, revision, config=config, head="saved or new")


def _check(before: Tokenizer, after: Tokenizer, new_id: dict[int, int], parts: Iterator[list[str]]) -> None:
    for texts in parts:
        for text, old, new in zip(texts, before.encode_batch(texts), after.encode_batch(texts), strict=True):
            if old.tokens != new.tokens or [new_id[i] for i in old.ids] != new.ids:
                raise RuntimeError(
                    f"{text!r} is tokenised as {new.tokens} now, as {old.tokens} before; this is a bug"
                )
