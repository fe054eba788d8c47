"""A linear-chain conditional random field (Lafferty et al., 2001), and a transformer with one on top.

Shapes: B sequences, T tokens, W words of the longest, L labels, H hidden.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

from finetune.models.chains import MOST_LABELS, best_path, log_marginals, log_partition
from finetune.models.configuration import EncoderCrfConfig, labels_of
from finetune.models.embeddings import word_start_mark

IGNORE = -100
_IMPOSSIBLE = -1e4


class LinearChainCrf(nn.Module):
    """Scores for each pair of neighbouring labels, and for labels at the start and at the end.

    In training every sequence of labels is possible, since real data holds tags that break IOB2. Decoding forbids
    what IOB2 forbids: `I-X` at the start of a sentence, and `I-X` that does not follow `B-X` or `I-X`.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = list(labels)
        L = len(self.labels)
        self.transitions = nn.Parameter(torch.zeros(L, L))  # [from, to]
        self.start = nn.Parameter(torch.zeros(L))
        self.end = nn.Parameter(torch.zeros(L))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """All scores zero: no label is likelier than another."""
        for parameter in self.parameters():
            parameter.zero_()

    def negative_log_likelihood(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """-log p(tags) of each sequence, (B,).

        Args:
            emissions: float32 (B, W, L).
            tags: int64 (B, W), anything where `mask` is false.
            mask: bool (B, W), true for the first words of each sequence, at least one.
        """
        last = mask.sum(1) - 1
        if in_blocks(emissions):
            log_z = log_partition(self.start, self.transitions, self.end, emissions, mask)
        else:
            log_z = torch.logsumexp(_at(self._forward(emissions, mask), last) + self.end, dim=-1)

        tags = tags.masked_fill(~mask, 0)
        unary = emissions.gather(2, tags[..., None]).squeeze(2) * mask
        steps = self.transitions[tags[:, :-1], tags[:, 1:]] * mask[:, 1:]
        ends = self.start[tags[:, 0]] + self.end[tags.gather(1, last[:, None]).squeeze(1)]
        return log_z - (unary.sum(1) + steps.sum(1) + ends)

    def decode(self, emissions: Tensor, mask: Tensor, continues: Tensor) -> tuple[Tensor, Tensor]:
        """The best sequences that IOB2 allows (Viterbi), and each label's probability at each word.

        Args:
            emissions, mask: as above.
            continues: bool (B,), true if the sequence is the rest of a sentence; it may then start with `I-X`.

        Returns:
            int64 (B, W) labels, 0 where `mask` is false; float32 (B, W, L) log-probabilities under the
            unconstrained model (forward-backward).
        """
        forbidden, forbidden_start = (x.to(emissions.device) for x in _forbidden(self.labels))
        transitions = self.transitions.masked_fill(forbidden, _IMPOSSIBLE)
        start = self.start.masked_fill(forbidden_start & ~continues[:, None], _IMPOSSIBLE)  # (B, L)

        if in_blocks(emissions):
            tags = best_path(start, transitions, self.end, emissions, mask).masked_fill(~mask, 0)
            return tags, log_marginals(self.start, self.transitions, self.end, emissions, mask)
        tags = self._best_path(start, transitions, emissions, mask).masked_fill(~mask, 0)
        return tags, self.log_marginals(emissions, mask)

    def log_marginals(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Each label's log-probability at each word, (B, W, L), with a gradient. Past the end, it has no meaning."""
        alphas, betas = self._forward(emissions, mask), self._backward(emissions, mask)
        log_z = torch.logsumexp(_at(alphas, mask.sum(1) - 1) + self.end, dim=-1)
        return alphas + betas - log_z[:, None, None]

    def _best_path(self, start: Tensor, transitions: Tensor, emissions: Tensor, mask: Tensor) -> Tensor:
        _, W, L = emissions.shape
        score = start + emissions[:, 0]
        pointers = []
        for w in range(1, W):
            best, pointer = (score[:, :, None] + transitions).max(1)  # (B, L)
            going = mask[:, w, None]
            score = torch.where(going, best + emissions[:, w], score)
            # Past the end of a sequence, the pointer stays where it is.
            pointers.append(torch.where(going, pointer, torch.arange(L, device=score.device)))
        tag = (score + self.end).argmax(1)
        path = [tag]
        for pointer in reversed(pointers):
            tag = pointer.gather(1, tag[:, None]).squeeze(1)
            path.append(tag)
        return torch.stack(path[::-1], dim=1)

    def _forward(self, emissions: Tensor, mask: Tensor) -> Tensor:
        alpha = self.start + emissions[:, 0]
        alphas = [alpha]
        for w in range(1, emissions.shape[1]):
            moved = torch.logsumexp(alpha[:, :, None] + self.transitions, dim=1) + emissions[:, w]
            alpha = torch.where(mask[:, w, None], moved, alpha)
            alphas.append(alpha)
        return torch.stack(alphas, dim=1)  # (B, W, L)

    def _backward(self, emissions: Tensor, mask: Tensor) -> Tensor:
        beta = self.end.expand(emissions.shape[0], -1)
        betas = [beta]
        for w in range(emissions.shape[1] - 1, 0, -1):
            moved = torch.logsumexp(self.transitions + (emissions[:, w] + beta)[:, None, :], dim=2)
            beta = torch.where(mask[:, w, None], moved, beta)
            betas.append(beta)
        return torch.stack(betas[::-1], dim=1)  # (B, W, L)


def in_blocks(emissions: Tensor) -> bool:
    """Whether to use `chains`, which is faster on a GPU. On a CPU the plain loop is used, so its results stay."""
    return emissions.device.type != "cpu" and emissions.shape[2] <= MOST_LABELS


def crf_outputs(
    crf: LinearChainCrf,
    emissions: Tensor,
    labels: Tensor | None,
    words: Tensor,
    prefix_tokens: int,
    training: bool,
) -> tuple[Tensor | None, Tensor]:
    """Loss and logits of a token classifier with a CRF.

    Args:
        emissions: (B, T, L) of any float type.
        labels: int64 (B, T), -100 on all but the first subwords of the words to label; these make the chain.
        words: bool (B, T), the positions that make the chain if `labels` is None.
        prefix_tokens: special tokens before a row's first word. A chain that starts later continues a sentence.
        training: skip decoding.

    Returns:
        The mean loss of a word, and logits (B, T, L). In evaluation a word's logits are log-probabilities, and their
        argmax is the decoded label. If Viterbi chooses another label than the most probable one, the values of these
        two labels are exchanged.
    """
    mask = words if labels is None else labels != IGNORE
    emissions = emissions.float()
    if torch.onnx.is_in_onnx_export():  # the graph ends here, and `finetune/export/viterbi.py` decodes
        return None, emissions
    if training:
        # Every parameter must take part in every step. Otherwise the others would wait for a process without targets.
        emissions = emissions + 0.0 * sum(parameter.sum() for parameter in crf.parameters())
    if not bool(mask.any()):
        return (emissions.sum() * 0.0 if labels is not None else None), emissions
    rows, position, chain_mask = words_of_chain(mask)
    chain = emissions[rows, position]
    with torch.autocast(emissions.device.type, enabled=False):
        loss = None
        if labels is not None:
            losses = crf.negative_log_likelihood(chain, labels[rows, position], chain_mask)
            loss = losses.sum() / mask.sum()
        if training:
            return loss, emissions
        decoded, log_probabilities = crf.decode(chain, chain_mask, position[:, 0] > prefix_tokens)
    logits = emissions.clone()
    logits[rows.expand_as(position)[chain_mask], position[chain_mask]] = _with_argmax(log_probabilities, decoded)[
        chain_mask
    ]
    return loss, logits


def words_of_chain(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the words of each row stand, moved to the left. Rows without a word are left out.

    Args:
        mask: bool (B, T), at least one is true.

    Returns:
        The rows, int64 (b, 1); the positions of their words, int64 (b, W); and which of these are real, bool (b, W).
    """
    nonempty = mask.any(1)
    rows = torch.arange(len(mask), device=mask.device)[:, None][nonempty]
    position = torch.argsort(~mask, dim=1, stable=True)[nonempty, : int(mask.sum(1).max())]
    return rows, position, mask[rows, position]


class EncoderCrfForTokenClassification(PreTrainedModel):
    """A BERT, RoBERTa or XLM-R with a linear layer and a CRF over the words (first subwords only).

    Without labels, as in `pipeline()`, the words are the tokens that can start one (`starts_word`).
    """

    config_class = EncoderCrfConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, config: EncoderCrfConfig) -> None:
        from transformers import AutoConfig  # here, since importing it registers this very class

        super().__init__(config)
        settings: dict[str, Any] = dict(config.encoder or {})
        encoder_config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        self.encoder = _encoder(encoder_config)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(encoder_config.hidden_size, len(labels_of(config)))
        self.crf = LinearChainCrf(labels_of(config))
        self.register_buffer("starts_word", torch.ones(encoder_config.vocab_size, dtype=torch.bool))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LinearChainCrf):
            module.reset_parameters()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Inputs as `BertForTokenClassification`; `labels` int64 (B, T), -100 on all but first subwords."""
        hidden = self.encoder(input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state  # (B, T, H)
        emissions = self.classifier(self.dropout(hidden))
        words = self.get_buffer("starts_word")[input_ids]
        if attention_mask is not None:
            words = words & attention_mask.bool()
        loss, logits = crf_outputs(self.crf, emissions, labels, words, self.config.prefix_tokens, self.training)
        return TokenClassifierOutput(loss=loss, logits=logits)


def _encoder(config: Any) -> PreTrainedModel:
    from transformers import AutoModel

    try:
        return AutoModel.from_config(config, add_pooling_layer=False)
    except TypeError:  # an encoder that never has a pooler, as DistilBERT
        return AutoModel.from_config(config)


def token_starts_word(tokenizer: Any) -> Tensor:
    """bool (V,): the pieces that can be the first of a word."""
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    mark = word_start_mark(pieces)
    starts = [not p.startswith("##") if mark is None else p.startswith(mark) for p in pieces]
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return torch.tensor([start and i not in special for i, start in enumerate(starts)])


def _forbidden(labels: list[str]) -> tuple[Tensor, Tensor]:
    """bool (L, L) and (L,): what IOB2 does not allow as a transition, and at the start."""
    into = [label.startswith("I-") for label in labels]
    pairs = [[i and before[1:] != after[1:] for after, i in zip(labels, into, strict=True)] for before in labels]
    return torch.tensor(pairs), torch.tensor(into)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """(B, W, L), (B,) -> (B, L)."""
    return values[torch.arange(len(index), device=index.device), index]


def _with_argmax(values: Tensor, argmax: Tensor) -> Tensor:
    """`values` (..., L), with the entry at `argmax` (...) and the greatest entry exchanged."""
    greatest, where = values.max(-1, keepdim=True)
    index = argmax[..., None]
    chosen = values.gather(-1, index)
    return values.scatter(-1, where, chosen).scatter(-1, index, greatest)
