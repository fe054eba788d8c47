"""Generates text: with a language model, which adds one token after the other; with an encoder, which fills masks,
masks the least certain subwords again, and so on.

Shapes: B texts, T tokens, V vocabulary.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from finetune.models.tokenizer_fit import document_marks, position_limit


@torch.no_grad()
def continue_text(
    model: Any,
    tokenizer: Any,
    prompt: str = "",
    *,
    length: int = 50,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    count: int = 1,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> list[str]:
    """Continues `prompt` by up to `length` tokens, with the `generate()` of a causal language model.

    Args:
        model: as `AutoModelForCausalLM` loads it.
        tokenizer: its own.
        temperature: of the sampling; 0 takes the most probable token each time.
        top_k: sample only from the k most probable tokens; 0: from all.
        top_p: sample only from the fewest tokens that together have this probability (Holtzman et al., 2020).
        count: texts to make.
        stop: a text ends before the first of these strings that comes after the prompt.
        seed: of the sampling.

    Returns:
        `count` texts, each with the prompt first; the same seed gives the same texts. A text may also end where the
        model ends the document.

    Raises:
        ValueError: for a number out of range, or if the prompt and the length exceed the model's positions.
    """
    stop = [stop] if isinstance(stop, str) else list(stop)
    sampled = 0 <= temperature < math.inf and top_k >= 0 and 0 < top_p <= 1
    if length < 1 or count < 1 or not sampled or not all(stop):
        raise ValueError(
            f"length {length}, count {count}, temperature {temperature}, top_k {top_k}: at least 1, 1, 0 and 0; "
            f"top_p {top_p}: above 0, up to 1; stop {stop}: no empty string"
        )
    begin, end = document_marks(tokenizer)
    ids = [begin, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    limit = position_limit(model)
    if limit is not None and len(ids) + length > limit:
        raise ValueError(
            f"{len(ids)} tokens of the prompt and {length} new ones: the model has positions for {limit}"
        )
    before = tokenizer.decode(ids, skip_special_tokens=True)
    never = {*tokenizer.all_special_ids, *range(len(tokenizer), model.config.vocab_size)} - {end}
    settings = GenerationConfig(
        max_new_tokens=length,
        do_sample=temperature > 0,
        num_return_sequences=count if temperature > 0 else 1,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=sorted(never),
        **({"temperature": temperature, "top_k": top_k, "top_p": top_p} if temperature > 0 else {}),
    )

    def ends(rows: Tensor, _: Any) -> Tensor:
        """Which texts have a stop string after the prompt. (B, T) -> bool (B,)."""
        said = (_new(tokenizer, before, row, len(ids)) for row in rows.tolist())
        return torch.tensor([any(text in new for text in stop) for new in said], device=rows.device)

    inputs = torch.tensor([ids], device=model.device)
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(seed)
            found = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                generation_config=settings,
                stopping_criteria=[ends] if stop else None,
            )
    finally:
        model.train(was_training)
    texts = []
    for row in found.tolist():
        new = _new(tokenizer, before, row, len(ids))
        cut = min((at for text in stop if (at := new.find(text)) >= 0), default=len(new))
        texts.append(prompt + new[:cut].rstrip() if prompt else new[:cut].strip())
    return texts * (1 if temperature > 0 else count)


def _new(tokenizer: Any, before: str, row: list[int], begin: int) -> str:
    """What a text says after its prompt, whose text is `before`, and which is `begin` tokens long."""
    whole = tokenizer.decode(row, skip_special_tokens=True)
    if whole.startswith(before):
        return str(whole[len(before) :])
    return str(tokenizer.decode(row[begin:], skip_special_tokens=True))  # it joins texts in its own way


def mask_predict(
    model: Any,
    tokenizer: Any,
    prompt: str = "",
    *,
    length: int = 16,
    rounds: int = 10,
    temperature: float = 1.0,
    count: int = 1,
    seed: int = 0,
) -> list[str]:
    """Continues `prompt` by `length` subwords that are all masked at first: mask-predict (Ghazvininejad et al., 2019,
    section 3.2), with sampling.

    Args:
        model: with a head for masked tokens, as `AutoModelForMaskedLM` loads it.
        tokenizer: its own.
        rounds: how often all masks are filled at once. After round t of n, the share 1 - t / n of the subwords is
            masked again, namely those with the lowest probability. With one round, every subword is chosen without
            knowing the others.
        temperature: of the sampling; 0 takes the most probable subword.
        count: texts to make.
        seed: of the sampling.

    Returns:
        `count` texts, each with the prompt first; the same seed gives the same texts.

    Raises:
        ValueError: for a number out of range, or if the prompt and the length exceed the model's positions.
    """
    if tokenizer.mask_token is None:
        raise ValueError(f"the tokenizer ({type(tokenizer).__name__}) has no mask token, so nothing can be filled")
    if length < 1 or rounds < 1 or count < 1 or temperature < 0:
        raise ValueError(
            f"length {length}, rounds {rounds}, count {count}, temperature {temperature}: at least 1, 1, 1 and 0"
        )
    text = f"{prompt} {tokenizer.mask_token * length}".strip()
    return _fill(model, tokenizer, [text] * count, rounds, temperature, seed)


def fill_in(
    model: Any, tokenizer: Any, text: str, *, rounds: int = 10, temperature: float = 0.0, seed: int = 0
) -> str:
    """Fills every mask token of `text`. Several mask tokens in a row are a gap of several subwords.

    The gaps are filled together, so each one depends on the others. The text comes back as the tokenizer decodes it:
    an uncased tokenizer gives lower case, and characters for which it has no piece are lost. Arguments: see
    `mask_predict`.

    Raises:
        ValueError: if there is no mask token in the text.
    """
    if tokenizer.mask_token is None or tokenizer.mask_token not in text:
        raise ValueError(f"no gap in {text!r}: write {tokenizer.mask_token} for each subword that is missing")
    return _fill(model, tokenizer, [text], rounds, temperature, seed)[0]


@torch.no_grad()
def _fill(model: Any, tokenizer: Any, texts: list[str], rounds: int, temperature: float, seed: int) -> list[str]:
    inputs = dict(tokenizer(texts, return_tensors="pt").to(model.device))
    ids = inputs["input_ids"]  # (B, T)
    limit = position_limit(model)
    if limit is not None and ids.shape[1] > limit:
        raise ValueError(f"{ids.shape[1]} subwords, but the model has positions for {limit}")
    gaps = ids == tokenizer.mask_token_id
    wanted = int(gaps[0].sum())
    never = torch.tensor(sorted(set(tokenizer.all_special_ids)), device=ids.device)
    generator = torch.Generator(ids.device).manual_seed(seed)
    certainty = torch.where(gaps, 0.0, torch.inf)  # (B, T)
    masked = gaps
    was_training = model.training
    model.eval()
    try:
        for done in range(1, rounds + 1):
            output = model(**inputs | {"input_ids": ids})
            logits = (output.logits if "logits" in output else output.prediction_logits)[masked].float()
            logits[:, never] = -torch.inf
            logits[:, len(tokenizer) :] = -torch.inf
            probabilities = logits.softmax(-1)  # how certain the model is, whatever the temperature
            if temperature:
                chosen = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
            else:
                chosen = probabilities.argmax(-1)
            ids = ids.masked_scatter(masked, chosen)
            certainty = certainty.masked_scatter(masked, probabilities.gather(1, chosen[:, None])[:, 0])
            again = wanted - wanted * done // rounds
            if not again:
                break
            lowest = certainty.topk(again, largest=False).indices
            masked = torch.zeros_like(gaps).scatter(1, lowest, True)
            ids = ids.masked_fill(masked, tokenizer.mask_token_id)
    finally:
        model.train(was_training)
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
