"""Text to text: translation, summaries, other spellings.

Shapes: N pairs, B rows of a batch, T tokens that a model may say.
"""

import csv
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune import data, metrics, models, reporting
from finetune.arguments import DEFAULT_MODEL
from finetune.data import labels_counted as targets  # noqa: F401
from finetune.tasks import cross_attention
from finetune.tasks.samples import Runs, by_error, each, first_run, in_order

logger = logging.getLogger(__name__)

METRICS = ("bleu", "chrf", "loss", *metrics.ROUGE)
SHOWN = ("bleu", "chrf", *metrics.ROUGE, "loss", "perplexity")
PIPELINE = "translation"
USE = 'finetune.predict(FOLDER, ["Two dogs run."])[0]["predicted"]'


def read(config: Any, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The splits that a config names, as `finetune.data.read_parallel` gives them."""
    splits = data.read_parallel(config, config.source_column_name, config.target_column_name, given=given)
    for name in ("validation", "test") if config.rouge else ():
        texts = splits[name]["target"][:] if name in splits else []
        if strange := sum(not re.search("[a-z0-9]", text or "", re.IGNORECASE) for text in texts):
            logger.warning(
                "--rouge: %s of the %s targets of the %s split have no word of a to z and 0 to 9; rouge-score knows "
                "no other words, and gives these 0",
                *(f"{strange:,}", f"{len(texts):,}", name),
            )
    return splits


def headline(dataset: Any) -> str:
    """The score that models are compared by."""
    return "bleu"


def labels(splits: Mapping[str, Any]) -> list[str]:
    """None: an answer is a text."""
    return []


def settings(splits: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """How texts are scored. How they are decoded is in the model's `generation_config`."""
    if config.metric_for_best_model in metrics.ROUGE and not config.rouge:
        raise ValueError(f"--metric_for_best_model {config.metric_for_best_model}: it needs --rouge true")
    return {"bleu_tokenize": config.bleu_tokenize, "rouge": config.rouge}


def tokenizers(config: Any, train: Any, on_one_process: Any) -> Any:
    """The tokenizers of source and target: those of a checkpoint, or new ones from the texts of the training split.

    Args:
        on_one_process: see `finetune.models.new_tokenizers`.

    Raises:
        ValueError: naming the flag.
    """
    name, kind = config.model_name_or_path, config.tokenizer_name
    if not models.is_new_seq2seq(name):
        place = name
    elif name in models.WARM_STARTED:
        place = config.encoder_name_or_path or DEFAULT_MODEL
    else:
        place = None
    if place is not None and kind is not None:
        raise ValueError(f"--tokenizer_name {kind}: {name} has the tokenizer of its checkpoint; leave this flag out")
    if place is not None:
        return models.load_tokenizers(place, config.model_revision)
    if kind not in (None, *models.TRAINED):
        return models.load_tokenizers(kind, config.model_revision, flag="--tokenizer_name")
    return models.new_tokenizers(
        kind or models.TRAINED[0],
        train["text"][:],
        train["target"][:],
        vocab_size=config.vocab_size,
        joint=config.joint_vocabulary,
        on_one_process=on_one_process,
    )


def decode_as(model: Any, config: Any) -> None:
    """Puts the flags of decoding into the model's `generation_config`, which is saved with it.

    What a saved model had there is replaced: a length penalty without beams could not be saved.
    """
    own = {"num_beams": config.num_beams, "max_new_tokens": config.max_target_length, "do_sample": False}
    model.generation_config.update(**own, length_penalty=config.length_penalty if config.num_beams > 1 else None)


def encode(dataset: Any, tokenizer: Any, labels: Sequence[str], config: Any) -> data.EncodedPairs:
    """Both sides to subwords, without padding."""
    return data.encode_pairs(
        dataset["text"][:],
        dataset["target"][:],
        tokenizer.source,
        tokenizer.target,
        end=models.start_and_end(tokenizer.target)[1],
        max_seq_length=config.max_seq_length,
        max_target_length=config.max_target_length,
    )


def with_teacher_forcing(encoded: data.EncodedPairs, config: Any) -> data.EncodedPairs:
    """The pairs of the training split, with the share of right words that the decoder is given in each epoch."""
    share = partial(models.teacher_forcing_in, epochs=config.num_train_epochs, last=config.teacher_forcing)
    return replace(encoded, rows=data.WithShare(encoded.rows, share))


def gold(dataset: Any, labels: Sequence[str]) -> list[str]:
    """The target texts, whole."""
    texts: list[str] = dataset["target"][:]
    return texts


def run(model: Any, batch: Any, bare: Any) -> dict[str, Tensor]:
    """The loss of a batch that has targets, and `said`: int64 (B, T), what the model says on its own."""
    inputs = batch.inputs
    found = {"loss": model(**inputs).loss} if "labels" in inputs else {}
    said = bare.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])[:, 1:]
    decoding = bare.generation_config
    room = decoding.max_new_tokens - said.shape[1]  # all batches have one width
    return found | {"said": torch.nn.functional.pad(said, (0, room), value=decoding.pad_token_id)}


def collect(output: Any, batch: Any, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the model says of each row."""
    return {"said": output["said"].int()}


def decode(encoded: data.EncodedPairs, found: Mapping[str, np.ndarray]) -> list[str]:
    """The texts that the model says."""
    if "said" not in found:
        return []
    texts = encoded.target_tokenizer.batch_decode(found["said"], skip_special_tokens=True)
    return [text.strip() for text in texts]


def counts(
    gold: Sequence[str], said: Sequence[str], labels: Sequence[str], settings: Mapping[str, Any]
) -> np.ndarray:
    """What each pair adds to the scores: to BLEU, to chrF, and if that is asked for to ROUGE."""
    tables = [metrics.bleu_counts(gold, said, settings["bleu_tokenize"]), metrics.chrf_counts(gold, said)]
    return np.concatenate(tables + ([metrics.rouge_counts(gold, said)] if settings["rouge"] else []), axis=1)


def score(sums: np.ndarray, labels: Sequence[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """The scores of summed counts, from 0 to 1."""
    words, letters, rest = np.split(sums, [metrics.BLEU_COUNTS, metrics.BLEU_COUNTS + metrics.CHRF_COUNTS])
    found = {"bleu": float(metrics.bleu(words)), "chrf": float(metrics.chrf(letters))}
    return found | {name: float(rest[i] / rest[-1]) for i, name in enumerate(metrics.ROUGE) if len(rest)}


def derived(scores: Mapping[str, float]) -> dict[str, float]:
    """The perplexity of a target token."""
    return {"perplexity": math.exp(min(scores["loss"], 700.0))}  # e ** 710 is more than a float holds


def notes(settings: Mapping[str, Any]) -> list[str]:
    """For the model card: how BLEU and chrF were counted."""
    return [
        f"BLEU is sacrebleu's, with the signature `{metrics.bleu_signature(settings['bleu_tokenize'])}`; chrF is "
        "sacrebleu's chrF2. Papers show them times 100."
    ]


def write(
    file: Callable[[str], Path],
    name: str,
    dataset: Any,
    said: Sequence[str],
    labels: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Writes `predictions_<name>.tsv`: the source, the target, and what the model says."""
    rows = zip(dataset["text"][:], dataset["target"][:], said, strict=True)
    reporting.write_predictions(file(f"predictions_{name}.tsv"), ["text", "target", "predicted"], rows)


def reread(folder: Path, name: str) -> tuple[list[list[str]], list[Any], list[Any], list[float]]:
    """Words of the source, target and predicted text, from `predictions_<name>.tsv`; no scores."""
    csv.field_size_limit(2**31 - 1)  # a text may be long
    with (folder / f"predictions_{name}.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return (
        [row["text"].split() for row in rows],
        [row["target"] for row in rows],
        [row["predicted"] for row in rows],
        [],
    )


def restored(found: Sequence[Any], labels: Sequence[str], settings: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The targets and the predicted texts from what `reread` gave, as `counts` takes them."""
    return found[1], found[2]


def inputs(dataset: Any) -> tuple[list[list[str]], list[Any]]:
    """Words of each source and its target, as `reread` has them."""
    return [text.split() for text in dataset["text"][:]], [" ".join(text.split()) for text in dataset["target"][:]]


def compared(read: Runs, splits: Mapping[str, Any]) -> dict[str, Any]:
    """What models have in common and where they differ, from what each of their runs said."""
    some = first_run(read)
    tables = {key: metrics.bleu_counts(some.gold, run.predicted, run.config.bleu_tokenize) for key, run in each(read)}
    lengths = np.array([metrics.length_group(len(words)) for words in some.words])
    groups = sorted(set(lengths.tolist()), key=in_order)
    by_length = {
        name: {
            group: float(np.mean([metrics.bleu(tables[name, seed][lengths == group].sum(0)) for seed in seeds]))
            for group in groups
        }
        for name, seeds in read.items()
    }
    return {
        "metric": "bleu",
        "score": metrics.bleu,
        "counts": {name: np.stack([tables[name, seed] for seed in seeds]) for name, seeds in read.items()},
        "breakdowns": {
            "source length": {
                "size": {group: int((lengths == group).sum()) for group in groups},
                "of": "texts, by BLEU",
                "scores": by_length,
            }
        },
        "examples": by_error(
            read,
            lambda right, said: 1.0 - float(metrics.chrf(metrics.chrf_counts([right], [said])[0])),
            kinds=_error_kinds,
        ),
        "attention": cross_attention.maps_of_runs(read),
    }


def _error_kinds(right: str, said: str) -> list[str]:
    if not said:
        return ["empty"]
    share = len(said) / max(len(right), 1)
    return ["less than half as long"] if share < 0.5 else ["more than twice as long"] if share > 2 else []


def check(sample: Any, predictor: Any) -> None:
    """Raises ValueError, in one sentence, for what this model does not answer."""
    if not isinstance(sample, str):
        raise ValueError("this model turns a text into another: give a text")


def answer(samples: Sequence[Any], predictor: Any) -> list[dict[str, Any]]:
    """The text that the model says of each sample."""
    encoded = data.encode_pairs(
        samples,
        None,
        predictor.tokenizer.source,
        predictor.tokenizer.target,
        end=0,  # no targets
        max_seq_length=predictor.max_seq_length,
    )
    if encoded.sources_cut:
        data.warn_of_cut_texts(predictor.max_seq_length)
    return [{"predicted": text} for text in decode(encoded, predictor.collect(encoded.rows))]
