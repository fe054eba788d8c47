"""Documents and objective -> rows with masks, for each epoch.

Shapes: B rows, S spans of them, T tokens of all rows together.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from finetune.data.documents import HELD_OUT
from finetune.data.flags import FORMS, InputForm, Objective
from finetune.data.instances import (
    NEXT,
    NOT_NEXT,
    UNASKED,
    Instances,
    Spans,
    collect,
    full_sentences,
    ordered_pairs,
    parallel_pairs,
    segment_pairs,
    sentence_pairs,
)
from finetune.data.masking import Masking, mask_tokens, row_keys
from finetune.data.rows import Rows, ranges
from finetune.data.tokens import Documents

EVAL_SEED = 0  # evaluation draws the same masks for every --seed


@dataclass(frozen=True)
class Template:
    """What an input looks like around its segments: `cls A between B sep`."""

    cls: int
    sep: int
    between: int  # separators between two segments of a pair: 1 for BERT, 2 for RoBERTa and XLM-R
    special: np.ndarray  # int64: ids that are never masked, not even where they stand in the text
    token_types: bool  # the model tells the segments of a pair apart
    first_position: int | None = None  # where positions begin, if they begin again in the second segment


def template_of(tokenizer: Any, *, token_types: bool, first_position: int | None = None) -> Template:
    """Finds out how a tokenizer joins two texts.

    Raises:
        ValueError: where it does not do so with one token in front, and the same token between and behind.
    """
    probe = tokenizer("a", "a", return_special_tokens_mask=True)
    special = np.array(probe["special_tokens_mask"], dtype=bool)
    ids = np.array(probe["input_ids"])[special].tolist()
    if len(ids) not in (3, 4) or len(set(ids[1:])) != 1 or ids[0] == ids[1]:
        raise ValueError(
            f"the tokenizer ({type(tokenizer).__name__}) joins two texts by the special tokens "
            f"{tokenizer.convert_ids_to_tokens(ids)}; it takes [CLS] A [SEP] B [SEP], or <s> A </s></s> B </s>"
        )
    special_ids = np.array(sorted(set(tokenizer.all_special_ids)))
    return Template(ids[0], ids[1], len(ids) - 2, special_ids, token_types, first_position)


@dataclass(frozen=True)
class EpochRows:
    """The rows of one epoch, made when they are taken."""

    documents: Sequence[Documents]
    instances: Sequence[Instances]  # of each of the documents
    which: np.ndarray | None  # int64 (N, 2): for each row, whose instance, and its number there; None: all, in order
    template: Template
    masking: Masking
    seed: int
    mask_epoch: int
    paired: bool  # two segments with `between` separators, and not documents with one
    labelled: bool
    only_first: bool = False  # mask the first segment alone

    def __len__(self) -> int:
        return len(self.instances[0]) if self.which is None else len(self.which)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (N,)."""
        lengths = []
        for instances in self.instances:
            sizes = np.concatenate([[0], np.cumsum(instances.spans[:, 1] - instances.spans[:, 0])])
            tokens, segments = np.diff(sizes[instances.offsets]), np.diff(instances.offsets)
            lengths.append(tokens + 2 + (segments - 1) * self._separators)
        if self.which is None:
            return lengths[0]
        begins = np.concatenate([[0], np.cumsum([len(part) for part in lengths])])
        return np.concatenate(lengths)[begins[self.which[:, 0]] + self.which[:, 1]]

    @property
    def _separators(self) -> int:
        return self.template.between if self.paired else 1

    def take(self, row_ids: Sequence[int] | np.ndarray) -> Rows:
        """Rows with their masks; `tokens["labels"]` are the masked tokens' ids."""
        ids = np.asarray(row_ids, dtype=np.int64)
        rows, words = self.unmasked(ids)
        keys = row_keys(self.seed, self.mask_epoch, ids)
        masked, labels = mask_tokens(self.masking, rows.tokens["input_ids"], rows.offsets, words, keys)
        return Rows(rows.offsets, rows.tokens | {"input_ids": masked, "labels": labels}, rows.samples)

    def unmasked(self, ids: np.ndarray) -> tuple[Rows, np.ndarray]:
        """The rows as they are before masking, and for each token the number of its word, or -1."""
        if self.which is None:
            return self._assemble(0, ids)
        sources, numbers = self.which[ids].T
        # Each corpus by itself, then all in the order that was asked for.
        parts, order = [], []
        for source in np.unique(sources):
            mine = np.flatnonzero(sources == source)
            rows, words = self._assemble(int(source), numbers[mine])
            words[words >= 0] += int(source) << 40  # no number twice
            parts.append(Rows(rows.offsets, rows.tokens | {"words": words}, rows.samples))
            order.append(mine)
        offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))])
        tokens = {key: np.concatenate([part.tokens[key] for part in parts]) for key in parts[0].tokens}
        samples = {key: np.concatenate([part.samples[key] for part in parts]) for key in parts[0].samples}
        joined = Rows(offsets, tokens, samples).take(np.argsort(np.concatenate(order)))
        return joined, joined.tokens.pop("words")

    def _assemble(self, source: int, numbers: np.ndarray) -> tuple[Rows, np.ndarray]:
        documents, instances = self.documents[source], self.instances[source]
        segments = instances.offsets[numbers + 1] - instances.offsets[numbers]  # (B,)
        spans = np.asarray(instances.spans[ranges(instances.offsets[numbers], segments)])  # (S, 2)
        sizes = spans[:, 1] - spans[:, 0]
        row_of = np.repeat(np.arange(len(numbers)), segments)  # (S,)
        nth = np.arange(len(spans)) - np.repeat(np.cumsum(segments) - segments, segments)  # (S,)
        content = np.bincount(row_of, weights=sizes, minlength=len(numbers)).astype(np.int64)
        lengths = content + 2 + (segments - 1) * self._separators
        offsets = np.concatenate([[0], np.cumsum(lengths)])

        before = np.cumsum(sizes) - sizes  # tokens of the spans before, in all rows
        begins = (
            offsets[row_of] + 1 + before - before[np.cumsum(segments) - segments][row_of] + nth * self._separators
        )
        to, of = ranges(begins, sizes), ranges(spans[:, 0], sizes)

        input_ids = np.full(offsets[-1], self.template.sep, dtype=np.int64)
        input_ids[offsets[:-1]] = self.template.cls
        input_ids[to] = documents.tokens[of]
        starts = documents.starts_word[of]
        starts[np.cumsum(sizes) - sizes] = True  # a span may begin within a word
        words = np.full(offsets[-1], -1, dtype=np.int64)
        words[to] = np.cumsum(starts)
        words[np.isin(input_ids, self.template.special)] = -1
        if self.only_first:
            words[ranges(begins[nth == 1], sizes[nth == 1])] = -1

        tokens = {"input_ids": input_ids}
        second = ranges(begins[nth == 1], offsets[row_of[nth == 1] + 1] - begins[nth == 1])
        if self.template.token_types:
            tokens["token_type_ids"] = np.zeros(offsets[-1], dtype=np.int64)
            tokens["token_type_ids"][second] = 1
        if self.template.first_position is not None:
            positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
            # The second segment counts from its own first separator, where there are two.
            own = self._separators - 1
            again = begins[nth == 1] - own
            rest = offsets[row_of[nth == 1] + 1] - again
            positions[ranges(again, rest)] = ranges(np.zeros_like(rest), rest)
            tokens["position_ids"] = positions + self.template.first_position
        samples = {"next_sentence_label": np.asarray(instances.labels[numbers])} if self.labelled else {}
        return Rows(offsets, tokens, samples), words


@dataclass
class PretrainingRows:
    """The rows of every epoch of pretraining, for one split. `pretraining_rows` makes them from flags.

    Args:
        documents: one of each file (for `xlm-r`: of each language).
        static: the instances and masks of an epoch come again after `dupe_factor` epochs, as BERT's did.
        sampling_alpha: `xlm-r`: a language of n inputs gets a share proportional to n ** alpha of them.
        shift: `tlm`: the second sentence from another row, and masks in the first one alone, as with `shift` 0 and
            `only_first`: for telling what the translation is worth.
    """

    documents: Sequence[Documents]
    objective: Objective
    input_form: InputForm
    template: Template
    masking: Masking
    max_seq_length: int
    seed: int
    short_seq_prob: float = 0.1
    static: bool = False
    dupe_factor: int = 10
    sampling_alpha: float | None = None
    shift: int = 0
    only_first: bool = False
    _built: dict[int, list[Instances]] = field(default_factory=dict, init=False, repr=False)
    _sizes: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    def in_epoch(self, epoch: int) -> EpochRows:
        """The rows of an epoch."""
        version = self._version(epoch)
        instances = self._instances(version)
        which = None
        if len(instances) > 1 and self.sampling_alpha is None:
            which = np.concatenate(
                [np.stack([np.full(len(part), i), np.arange(len(part))], 1) for i, part in enumerate(instances)]
            )
        elif len(instances) > 1 and self.sampling_alpha is not None:
            which = self._sampled([len(part) for part in instances], version, self.sampling_alpha)
        return EpochRows(
            self.documents,
            instances,
            which,
            self.template,
            self.masking,
            self.seed,
            version,
            self.paired,
            self.objective in ("bert", "sop"),
            self.only_first,
        )

    def majority(self) -> float:
        """The accuracy of always giving the more frequent answer about the pairs."""
        labels = np.concatenate([np.asarray(part.labels) for part in self._instances(self._version(0))])
        asked = labels[labels != UNASKED]
        return float(max(np.mean(asked == NEXT), np.mean(asked == NOT_NEXT))) if len(asked) else 0.0

    def rows_in(self, epoch: int) -> int:
        """How many rows an epoch has. If segments are drawn, epochs differ a little."""
        version = self._drawn(self._version(epoch))
        if version not in self._sizes:
            self._sizes[version] = len(self.in_epoch(epoch))
        return self._sizes[version]

    @property
    def paired(self) -> bool:
        """Whether an input has two segments."""
        return self.objective == "tlm" or self.input_form in ("segment_pair", "sentence_pair")

    def _instances(self, version: int) -> list[Instances]:
        version = self._drawn(version)
        if version not in self._built:
            self._built.clear()
            self._built[version] = [collect(self._build(documents, version)) for documents in self.documents]
        return self._built[version]

    def _version(self, epoch: int) -> int:
        return epoch % self.dupe_factor if self.static else epoch

    def _drawn(self, version: int) -> int:
        """Packed sentences are the same in every version: there is nothing to draw."""
        return version if self.paired else 0

    def _build(self, documents: Documents, version: int) -> Iterator[tuple[Spans, int]]:
        content = self.max_seq_length - 2 - (self.template.between if self.paired else 0)
        builders: dict[str, Callable[..., Iterator[tuple[Spans, int]]]] = {
            "segment_pair": partial(segment_pairs, short_seq_prob=self.short_seq_prob),
            "sentence_pair": sentence_pairs,
        }
        if self.objective == "tlm":
            return parallel_pairs(documents, content, seed=self.seed, version=version, shift=self.shift)
        if self.objective == "sop":
            return ordered_pairs(
                documents, content, seed=self.seed, version=version, short_seq_prob=self.short_seq_prob
            )
        if self.paired:
            return builders[self.input_form](documents, content, seed=self.seed, version=version)
        return full_sentences(documents, content, cross=self.input_form == "full_sentences")

    def _sampled(self, sizes: list[int], epoch: int, alpha: float) -> np.ndarray:
        """Rows of each language by its share. A language's rows come in shuffled rounds, so that none comes twice
        before each came once, however many epochs that takes.
        """
        counts = shares(sizes, alpha)
        parts = []
        for source, (size, count) in enumerate(zip(sizes, counts, strict=True)):
            begin = epoch * count
            rounds = range(begin // size, -(-(begin + count) // size))
            drawn = [np.random.default_rng((self.seed, 1, source, number)).permutation(size) for number in rounds]
            numbers = np.concatenate(drawn)[begin - rounds.start * size :][:count] if count else np.zeros(0, np.int64)
            parts.append(np.stack([np.full(count, source), numbers], 1))
        return np.concatenate(parts)


def shares(sizes: Sequence[int], alpha: float) -> list[int]:
    """How many of `sum(sizes)` rows each language gets: proportional to `size ** alpha` (Conneau et al., 2020,
    section 3), at least one.
    """
    weights = np.array(sizes, dtype=np.float64) ** alpha
    counts: list[int] = np.maximum(np.round(sum(sizes) * weights / weights.sum()), 1).astype(int).tolist()
    return counts


def pretraining_rows(
    documents: Sequence[Documents], config: Any, tokenizer: Any, split: str, first_position: int = 0
) -> PretrainingRows:
    """The rows of a split as the flags of `recipes/pretrain.py` ask for them.

    What is masked in training is up to the flags; evaluation masks 15 % of the single tokens, 80/10/10, as BERT did,
    so that runs which were trained otherwise can be compared.

    Args:
        documents: one for each language (`xlm-r`), or one.
        first_position: what the model counts positions from.

    Raises:
        ValueError: naming the flag, or the file, for what cannot make instances.
    """
    objective: Objective = config.objective
    form: InputForm = FORMS[objective][0] if config.input_form == "default" else config.input_form
    if tokenizer.mask_token_id is None:
        raise ValueError(f"the tokenizer ({type(tokenizer).__name__}) has no mask token, so nothing can be masked")
    if form in ("segment_pair", "sentence_pair") and objective != "tlm":
        for part in documents:
            _check_pairs(part, form, objective)

    special = set(tokenizer.all_special_ids)
    ordinary_ids = np.array([i for i in range(len(tokenizer)) if i not in special])
    masking = Masking(tokenizer.mask_token_id, ordinary_ids)
    if split == "train":
        masking = replace(
            masking,
            unit=config.masking,
            mlm_probability=config.mlm_probability,
            mask_replace_prob=config.mask_replace_prob,
            random_replace_prob=config.random_replace_prob,
        )
    rows = PretrainingRows(
        documents,
        objective,
        form,
        template_of(
            tokenizer,
            token_types=objective in ("bert", "sop"),
            first_position=first_position if objective == "tlm" else None,
        ),
        masking,
        config.max_seq_length,
        config.seed if split == "train" else EVAL_SEED,
        config.short_seq_prob,
        config.static_masks,
        config.dupe_factor,
        config.sampling_alpha if objective == "xlm-r" and split == "train" else None,
    )
    if not rows.rows_in(0):
        names = ", ".join(part.name for part in documents)
        raise ValueError(f"{names}: no row has text in two of the columns {config.parallel_columns}")
    return rows


def _check_pairs(documents: Documents, form: str, objective: str) -> None:
    sentences = len(documents.sentences) - 1
    if HELD_OUT in documents.name and (sentences == len(documents) or (len(documents) == 1 and objective != "sop")):
        raise ValueError(
            f"{documents.name}: {len(documents):,} document(s) of {sentences:,} sentences, too few for a {form}: "
            "give a larger --validation_split_percentage, a --validation_file, or --validation_split_percentage 0 "
            "with --eval_strategy no"
        )
    if len(documents) == 1 and objective != "sop":
        raise ValueError(
            f"{documents.name}: one document ({sentences:,} sentences), so there is no other one to draw a segment "
            "from that does not follow. Put a blank line between documents, or give --objective sop, or roberta with "
            "--input_form full_sentences"
        )
    if sentences == len(documents):
        raise ValueError(
            f"{documents.name}: each of the {len(documents):,} documents is one sentence, so no {form} goes on. A "
            "blank line ends a document: take them out between sentences that belong together, or split text into "
            "sentences with --sentences split"
        )
