"""The attention of several encoder-decoders from the words that they say to the words of the source, for a report."""

from collections.abc import Mapping
from typing import Any

from finetune import models, reporting
from finetune.tasks.samples import Runs, first_run

LONGEST = 16  # words of the source and of the target; a longer map is hard to read
_MOST = 200_000  # weights of a map in a report; above that, it has the mean of the heads of each layer


def maps_of_runs(read: Runs) -> dict[str, Any]:
    """The maps of each model's first seed for the samples that `samples_to_show` gives. Of a cross-validation, they
    are those of the first fold.

    Returns:
        `maps`: model -> a list of `sentence` (the number of the sample), `words` (the source), `said`, and `weights`
        (L, A, R, W) as nested lists, rounded. `missing`: model -> why it has no maps, in a sentence.
    """
    found: dict[str, Any] = {"maps": {}, "missing": {}}
    read = {name: {seed: run.parts[0] for seed, run in seeds.items()} for name, seeds in read.items()}
    chosen = samples_to_show(read)
    for name, seeds in read.items():
        run = next(iter(seeds.values()))
        try:
            found["maps"][name] = _maps(run, chosen)
        except Exception as error:  # any error: the scores are more important than a picture
            found["missing"][name] = " ".join(str(error).split()) or type(error).__name__
    return found


def samples_to_show(read: Runs) -> list[int]:
    """The numbers of at most two short samples: one that all models say as the target, and one that some do not.

    They are the longest ones that have at most `LONGEST` words on each side. If there is no such sample, it is the
    shortest one.
    """
    some = first_run(read)
    sizes = [max(len(words), len(right.split())) for words, right in zip(some.words, some.gold, strict=True)]
    right = [
        all(next(iter(seeds.values())).predicted[at] == target for seeds in read.values())
        for at, target in enumerate(some.gold)
    ]
    short = [at for at, size in enumerate(sizes) if 0 < size <= LONGEST and some.words[at]]
    groups = [[at for at in short if right[at] is wanted] for wanted in (True, False)]
    chosen = [max(group, key=lambda at: (sizes[at], -at)) for group in groups if group]
    filled = [at for at, words in enumerate(some.words) if words]
    return chosen or sorted(filled, key=lambda at: (sizes[at], at))[:1]


def _maps(run: Any, samples: list[int]) -> list[Mapping[str, Any]]:
    """The maps of one run.

    Raises:
        ValueError: for a model without attention.
    """
    model, tokenizer = models.load_as_saved(str(run.folder), for_words=False, flag="attention:")
    found: list[Mapping[str, Any]] = []
    for at in samples:
        shown = reporting.attention(model, " ".join(run.words[at]), tokenizer)
        weights = shown.weights
        if weights.size > _MOST:
            weights = weights.mean(1, keepdims=True)
        found.append(
            {
                "sentence": at,
                "words": list(shown.words),
                "said": list(shown.said),
                "weights": weights.round(4).astype(float).round(4).tolist(),
            }
        )
    return found
