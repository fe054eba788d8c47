"""Scores of language models: masked tokens, next sentences, next words; and numbers to compare them with."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def language_modelling_scores(
    losses: Mapping[str, float], targets: Mapping[str, int], correct: Mapping[str, int], second: str = "nsp"
) -> dict[str, float]:
    """The scores of a split from its sums.

    They are `mlm_loss` (in nats), `mlm_perplexity`, `mlm_accuracy`, and for pairs `nsp_loss` and `nsp_accuracy`. A
    mean over no targets is NaN.

    Args:
        losses, targets, correct: the sums for each loss: `loss`, or `mlm_loss` and `nsp_loss`.
        second: the name of the question on pairs, `nsp` or `sop`.
    """
    names = {"loss": "mlm", "mlm_loss": "mlm", "nsp_loss": second}
    scores: dict[str, float] = {}
    for key, name in names.items():
        if key in losses:
            mean = losses[key] / targets[key] if targets[key] else math.nan
            scores[f"{name}_loss"] = mean
            if name == "mlm":
                scores["mlm_perplexity"] = math.inf if mean >= 700 else math.exp(mean)
            scores[f"{name}_accuracy"] = correct[key] / targets[key] if targets[key] else math.nan
    return scores


def next_word_scores(sums: np.ndarray) -> dict[str, float]:
    """Scores of a language model that do not depend on its tokenizer.

    Args:
        sums: (4,): the negative log-probability of a text in nats, its tokens, its words, its characters.

    Returns:
        | score | |
        |---|---|
        | `perplexity` | e to the nats of a word |
        | `log_probability` | the mean of a word's, in nats: the higher, the better |
        | `bits_per_character` | |
        | `words`, `scored_tokens` | how many there are |
    """
    nats, tokens, words, characters = map(float, sums)
    return {
        "perplexity": math.exp(nats / words) if nats < 700 * words else math.inf,
        "log_probability": -nats / words,
        "bits_per_character": nats / math.log(2) / characters,
        "words": int(words),
        "scored_tokens": int(tokens),
    }


def unigram_entropy(counts: np.ndarray) -> float:
    """The entropy, in nats, of the distribution of `counts`, int64 (V,).

    A model that knows only how frequent each piece is has this loss. A masked language model with a lower loss has
    learned something more.
    """
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def pseudo_perplexity(model: Any, tokenizer: Any, texts: Sequence[str], *, batch_size: int = 32) -> list[float]:
    """The pseudo-perplexity of each text (Salazar et al., 2020, section 2.3).

    Each subword is masked alone, and the model predicts it from all others. The result is e to the power of the mean
    loss. A text with a lower value is more probable for the model.

    Args:
        model: a model with a head for masked tokens, on any device.
        tokenizer: the tokenizer of the model.
        texts: each has at least one subword, and not more subwords than the model has positions.

    Raises:
        ValueError: for one string instead of a list, a text without a subword, or a text that is too long.
    """
    import torch

    if isinstance(texts, str):
        raise ValueError("the texts are one string; give a list of them")
    limit = _positions(model)
    was_training = model.training
    model.eval()
    result = []
    try:
        with torch.no_grad():
            for text in texts:
                encoded = tokenizer(text, return_special_tokens_mask=True, return_tensors="pt")
                special = encoded.pop("special_tokens_mask")[0].bool()
                encoded = {key: value.to(model.device) for key, value in encoded.items()}
                at = torch.nonzero(~special.to(model.device)).flatten()
                if not len(at):
                    raise ValueError(f"{text!r}: this text has no subword, so it has no perplexity")
                if len(special) > limit:
                    raise ValueError(
                        f"{text[:40]!r} ...: this text has {len(special)} subwords with the special tokens, but the "
                        f"model has {limit:.0f} positions; split the text"
                    )
                losses = []
                for places in at.split(batch_size):
                    inputs = {key: value.repeat(len(places), 1) for key, value in encoded.items()}
                    rows = torch.arange(len(places), device=model.device)
                    inputs["input_ids"][rows, places] = tokenizer.mask_token_id
                    output = model(**inputs)
                    logits = output.logits if "logits" in output else output.prediction_logits
                    right = encoded["input_ids"][0, places]
                    losses.append(-logits[rows, places].float().log_softmax(-1)[rows, right])
                result.append(float(torch.cat(losses).mean().exp()))
    finally:
        model.train(was_training)
    return result


def _positions(model: Any) -> float:
    """The largest number of subwords in an input. RoBERTa and XLM-R number their positions from padding id + 1 on."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            return float(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return math.inf
