"""Recurrent baselines: Elman, LSTM and GRU encoders with heads for tokens and for sequences.

They have the inputs of a transformer's head. So they work with the same recipe, alignment, loop and metrics, and with
`pipeline()` after `import finetune`.

Shapes: B sequences, T tokens (words), C bytes of a word, L labels, H hidden (both directions).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from transformers import PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput

from finetune.models.configuration import RecurrentConfig, labels_of
from finetune.models.crf import LinearChainCrf, crf_outputs

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
_ROWS_OF_A_LENGTH = 8  # on a CPU, with so many rows per length on average, running each length alone is faster


def run_recurrent(
    cells: Sequence[Any], features: Tensor, lengths: Tensor, dropout: nn.Module | None = None
) -> Tensor:
    """Runs recurrent layers over each row without padding. Returns (B, T, H), with 0 past a row's length.

    See `run_recurrent_with_states` for the arguments.
    """
    return run_recurrent_with_states(cells, features, lengths, dropout)[0]


def run_recurrent_with_states(
    cells: Sequence[Any], features: Tensor, lengths: Tensor, dropout: nn.Module | None = None
) -> tuple[Tensor, list[Any]]:
    """Runs recurrent layers over each row without padding.

    `pack_padded_sequence` does this for any lengths, but on a CPU it does not use the fused kernels. So if a batch
    has few lengths (see `--train_sampling_strategy`), the rows of each length run alone.

    Args:
        cells: an `nn.LSTM`, `nn.GRU` or `nn.RNN` with `batch_first` for each layer, the lowest first.
        features: (B, T, E).
        lengths: int64 (B,), at least 1.
        dropout: between two layers. A cell's own dropout would draw from cuDNN's generator on a GPU, and no
            checkpoint saves that generator.

    Returns:
        (B, T, H), with 0 past a row's length, and the last state of each layer in the form of its cell.
    """
    if torch.onnx.is_in_onnx_export():  # `finetune/export/graph.py` has put cells of ONNX in their place
        for cell in cells:
            features = cell(features, lengths)
        return features, []
    if features.device.type != "cpu":
        # Under autocast, cuDNN would run a recurrent cell in float16 without a scaler of the loss, even for bfloat16.
        # So the cell runs in the dtype of its weights.
        with torch.autocast(features.device.type, enabled=False):
            return _packed(cells, features.to(cells[0].weight_hh_l0.dtype), lengths, dropout)
    distinct = lengths.unique().tolist()
    if len(distinct) * _ROWS_OF_A_LENGTH > len(lengths):
        return _packed(cells, features, lengths, dropout)
    groups = [(lengths == length).nonzero()[:, 0] for length in distinct]
    outputs, states = [], []
    for rows, length in zip(groups, distinct, strict=True):
        output, state = run_cells(cells, features[rows, :length], dropout=dropout)
        outputs.append(output)
        states.append(state)
    T = features.shape[1]
    padded = [nn.functional.pad(output, (0, 0, 0, T - output.shape[1])) for output in outputs]
    order = torch.cat(groups).argsort()
    return torch.cat(padded)[order], [_joined(of_layer, order) for of_layer in zip(*states, strict=True)]


def run_cells(
    cells: Sequence[Any], features: Tensor, states: Sequence[Any] | None = None, dropout: nn.Module | None = None
) -> tuple[Tensor, list[Any]]:
    """Runs recurrent layers over rows of one length, with the fused kernels. Arguments: `run_recurrent_with_states`.

    Args:
        states: the state that each layer begins with, in the form of its cell. Default: zeros.

    Returns:
        (B, T, H), and the last state of each layer.
    """
    device = features.device.type
    # On a CPU, the fused kernels refuse bfloat16 if the processor does not have it. On a GPU: see above.
    bf16 = device == "cpu" and torch.is_autocast_enabled("cpu") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    last = []
    with torch.autocast(device, enabled=bf16):
        for layer, cell in enumerate(cells):
            features = dropout(features) if layer and dropout else features
            features, state = cell(features.to(cell.weight_hh_l0.dtype), None if states is None else states[layer])
            last.append(state)
    return features, last


def _joined(states: Sequence[Any], order: Tensor) -> Any:
    """The states of several groups of rows, as one state of all rows in the given order."""
    if isinstance(states[0], tuple):  # an LSTM has two
        return tuple(torch.cat(part, dim=1)[:, order] for part in zip(*states, strict=True))
    return torch.cat(list(states), dim=1)[:, order]


def _packed(
    cells: Sequence[Any], features: Tensor, lengths: Tensor, dropout: nn.Module | None
) -> tuple[Tensor, list[Any]]:
    packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
    states = []
    for layer, cell in enumerate(cells):
        if layer and dropout:
            packed = PackedSequence(dropout(packed.data), *packed[1:])
        packed, state = cell(packed)
        states.append(state)
    return pad_packed_sequence(packed, batch_first=True, total_length=features.shape[1])[0], states


def places_of(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """bool (B, T) -> int64 (B, n), where a row's chosen tokens stand, and bool (B, n), which of these are real."""
    counts = chosen.sum(1)
    # A graph of ONNX has no shape that depends on the values, and no stable sorting.
    n = chosen.shape[1] if torch.onnx.is_in_onnx_export() else min(max(int(counts.max()), 1), chosen.shape[1])
    others = counts[:, None] + (~chosen).cumsum(1) - 1  # where each goes: the chosen ones come first
    columns = torch.arange(chosen.shape[1], device=chosen.device).expand_as(chosen)
    order = torch.zeros_like(columns).scatter(1, torch.where(chosen, chosen.cumsum(1) - 1, others), columns)[:, :n]
    return order, torch.arange(n, device=chosen.device) < counts[:, None]


def values_at(values: Tensor, at: Tensor) -> Tensor:
    """(B, T, E), (B, n) -> (B, n, E)."""
    return values.gather(1, at[..., None].expand(-1, -1, values.shape[2]))


class CharacterCnn(nn.Module):
    """A convolution over a word's bytes and the maximum over its positions (Ma and Hovy, 2016)."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, config.char_embedding_size, padding_idx=0)
        self.convolution = nn.Conv1d(config.char_embedding_size, config.char_hidden_size, 3, padding=1)

    def forward(self, char_ids: Tensor) -> Tensor:
        """int64 (words, C) -> (words, char_hidden_size)."""
        return self.convolution(self.embedding(char_ids).transpose(1, 2)).max(2).values


class CharacterBiLstm(nn.Module):
    """The last states of an LSTM over a word's bytes, forwards and backwards (Lample et al., 2016)."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, config.char_embedding_size, padding_idx=0)
        self.lstm = nn.LSTM(
            config.char_embedding_size, config.char_hidden_size // 2, batch_first=True, bidirectional=True
        )

    def forward(self, char_ids: Tensor) -> Tensor:
        """int64 (words, C) -> (words, char_hidden_size)."""
        lengths = (char_ids != 0).sum(1).clamp(min=1)
        states = run_recurrent([self.lstm], self.embedding(char_ids), lengths)  # (words, C, both directions)
        half = self.lstm.hidden_size
        words = torch.arange(char_ids.shape[0], device=char_ids.device)
        return torch.cat([states[words, lengths - 1, :half], states[:, 0, half:]], dim=1)


CHARACTERS = {"cnn": CharacterCnn, "bilstm": CharacterBiLstm}


class RecurrentPreTrainedModel(PreTrainedModel):
    """Initialises the baselines' weights."""

    config_class = RecurrentConfig
    base_model_prefix = "encoder"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.RNNBase):
            for name, weight in module.named_parameters():
                if name.startswith("weight_hh"):
                    for gate in weight.chunk(weight.shape[0] // module.hidden_size):
                        nn.init.orthogonal_(gate)
                elif name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(weight)
                else:
                    nn.init.zeros_(weight)
                    # A forget gate that starts open (Jozefowicz et al., 2015).
                    if isinstance(module, nn.LSTM) and name.startswith("bias_ih"):
                        weight[module.hidden_size : 2 * module.hidden_size] = 1.0
        elif isinstance(module, LinearChainCrf):
            module.reset_parameters()
        elif isinstance(module, (nn.Linear, nn.Conv1d)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
            if module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0


class RecurrentModel(RecurrentPreTrainedModel):
    """Word vectors, character features, recurrent layers."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        size = config.embedding_size
        if config.char_features != "none":
            self.characters = CHARACTERS[config.char_features](config)
            size += config.char_hidden_size
        self.dropout = nn.Dropout(config.dropout)
        H = config.hidden_size * (1 + config.bidirectional)
        # One cell for each layer. The weights of the lowest one have the same names in every baseline.
        self.recurrent, *above = (
            CELLS[config.cell](
                H if layer else size, config.hidden_size, batch_first=True, bidirectional=config.bidirectional
            )
            for layer in range(config.num_hidden_layers)
        )
        self.recurrent_above = nn.ModuleDict({str(layer): cell for layer, cell in enumerate(above, start=1)})
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word vectors."""
        return self.embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        char_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """
        | input | dtype, shape |
        |---|---|
        | `input_ids` | int64 (B, T) |
        | `attention_mask` | int64 (B, T), padding on the right; default: none |
        | `char_ids` | int64 (B, T, C), needed for character features |

        Returns: `last_hidden_state` (B, T, H), zero on padding.
        """
        B, T = input_ids.shape
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if not torch.onnx.is_in_onnx_export() and not attention_mask.any():  # only empty texts
            size = self.config.hidden_size * (1 + self.config.bidirectional)
            return BaseModelOutput(last_hidden_state=self.embeddings.weight.new_zeros(B, T, size))
        features = self.features(input_ids, attention_mask, char_ids)
        lengths = attention_mask.sum(1)
        hidden = self.run_layers(features, lengths.clamp(min=1))
        return BaseModelOutput(last_hidden_state=hidden * (lengths > 0)[:, None, None])

    def run_layers(self, features: Tensor, lengths: Tensor) -> Tensor:
        """All recurrent layers, with dropout below each: (B, T, E), (B,) -> (B, T, H), 0 past a row's length."""
        cells = [self.recurrent, *self.recurrent_above.values()]
        return run_recurrent(cells, self.dropout(features), lengths, self.dropout)

    def features(self, input_ids: Tensor, attention_mask: Tensor, char_ids: Tensor | None) -> Tensor:
        """The words' vectors with their characters' features, (B, T, E); the arguments are `forward`'s."""
        B, T = input_ids.shape
        if self.training and self.config.word_dropout:
            dropped = torch.rand(B, T, device=input_ids.device) < self.config.word_dropout
            input_ids = input_ids.masked_fill(dropped & attention_mask.bool(), self.config.unk_token_id)
        features = self.embeddings(input_ids)
        if self.config.char_features == "none":
            return features
        if char_ids is None:
            raise ValueError("this baseline reads characters: tokenize with its own tokenizer, which gives char_ids")
        if torch.onnx.is_in_onnx_export():  # no shape there may depend on the padding
            every = self.characters(char_ids.flatten(0, 1).long()).unflatten(0, (B, T))
            return torch.cat([features, every * attention_mask[..., None].to(every.dtype)], dim=2)
        characters = torch.zeros(B, T, self.config.char_hidden_size, device=features.device, dtype=features.dtype)
        real = attention_mask.bool()
        characters[real] = self.characters(char_ids[real].long()).to(features.dtype)
        return torch.cat([features, characters], dim=2)


class RecurrentForTokenClassification(RecurrentPreTrainedModel):
    """A label for every word: a linear layer, and a CRF if the config asks for it."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.encoder = RecurrentModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size * (1 + config.bidirectional), len(labels_of(config)))
        if config.crf:
            self.crf = LinearChainCrf(labels_of(config))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        char_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """As `RecurrentModel`, and `labels` int64 (B, T), -100 where there is no target."""
        hidden = self.encoder(input_ids, attention_mask, char_ids).last_hidden_state
        logits = self.classifier(self.dropout(hidden))  # (B, T, L)
        loss = None
        if self.config.crf:
            words = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
            loss, logits = crf_outputs(self.crf, logits, labels, words, 0, self.training)
        elif labels is not None:
            loss = cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        return TokenClassifierOutput(loss=loss, logits=logits)


class RecurrentForSequenceClassification(RecurrentPreTrainedModel):
    """A label for every text: the words pooled, then a linear layer.

    If the config says `pairs`, the same layers read each text of a pair alone. The linear layer sees the vectors u
    and v of the two texts, |u - v| and u * v (Conneau et al., 2017, section 3.1).
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        H = config.hidden_size * (1 + config.bidirectional)
        self.encoder = RecurrentModel(config)
        if config.pooling == "attention":
            self.attention = nn.Linear(H, H)
            self.attention_context = nn.Linear(H, 1, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(4 * H if config.pairs else H, len(labels_of(config)))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        char_ids: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """As `RecurrentModel`, `labels` int64 (B,), and for pairs `token_type_ids` int64 (B, T): 0 is the first text.

        Returns: `logits` (B, L); with attention pooling, `attentions` is a tuple of one (B, T) of weights, which sum
            to 1 over each text.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        B, T = input_ids.shape
        if self.config.pairs:
            at, real, input_ids, char_ids = self._texts_alone(input_ids, mask, char_ids, token_type_ids)
            mask = real.long()
        if torch.onnx.is_in_onnx_export() or not mask.any(1).all():
            input_ids, mask, char_ids = self._with_a_word(input_ids, mask, char_ids)
        hidden = self.encoder(input_ids, mask, char_ids).last_hidden_state
        pooled, weights = self._pool(hidden, mask.bool())
        if self.config.pairs:
            u, v = pooled[:B], pooled[B:]  # torch's exporter does not know `chunk` of an unknown size
            pooled = torch.cat([u, v, (u - v).abs(), u * v], dim=1)
            if weights is not None:  # each at its word's place in the pair
                weights = weights[:, : at.shape[1]].masked_fill(~real, 0.0)
                weights = weights.new_zeros(2 * B, T).scatter_add(1, at, weights).unflatten(0, (2, B)).sum(0)
        logits = self.classifier(self.dropout(pooled))
        if labels is None:
            loss = None
        elif self.config.problem_type in (None, "single_label_classification"):
            loss = cross_entropy(logits.float(), labels)
        else:
            loss = ForSequenceClassificationLoss(labels, logits.float(), self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits, attentions=None if weights is None else (weights,))

    def _texts_alone(
        self, input_ids: Tensor, mask: Tensor, char_ids: Tensor | None, token_type_ids: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The B first texts of the pairs, then the B second ones.

        Returns:
            Where their words stand in the pair, int64 (2B, n); which of these are real, bool (2B, n); their
            `input_ids` and `char_ids`.
        """
        if token_type_ids is None:
            raise ValueError("this baseline reads pairs of texts: it needs token_type_ids, 0 and 1")
        at, real = places_of(torch.cat([mask.bool() & (token_type_ids == text) for text in (0, 1)]))
        input_ids = input_ids.repeat(2, 1).gather(1, at).masked_fill(~real, self.config.pad_token_id or 0)
        if char_ids is not None:
            char_ids = values_at(char_ids.repeat(2, 1, 1), at).masked_fill(~real[..., None], 0)
        return at, real, input_ids, char_ids

    def _with_a_word(
        self, input_ids: Tensor, mask: Tensor, char_ids: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """An empty text becomes one unknown word, so that there is something to pool."""
        if input_ids.shape[1] == 0:
            input_ids, mask = (x.new_zeros(len(x), 1) for x in (input_ids, mask))
            char_ids = None if char_ids is None else input_ids.new_zeros(len(input_ids), 1, 1)
        first = torch.arange(input_ids.shape[1], device=input_ids.device) == 0
        added = ~mask.bool().any(1, keepdim=True) & first  # (B, T)
        return input_ids.masked_fill(added, self.config.unk_token_id), mask.masked_fill(added, 1), char_ids

    def _pool(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, T, H) -> (B, H), and the weights (B, T) where there are any."""
        if self.config.pooling == "mean":
            return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), None
        if self.config.pooling == "max":
            return hidden.masked_fill(~mask[..., None], float("-inf")).max(1).values, None
        if self.config.pooling == "last":
            last = hidden[torch.arange(hidden.shape[0], device=hidden.device), mask.sum(1) - 1]
            if not self.config.bidirectional:
                return last, None
            half = self.config.hidden_size  # backwards, the last state is that of the first word
            return torch.cat([last[:, :half], hidden[:, 0, half:]], dim=1), None
        # Additive attention (Bahdanau et al., 2015) with a learned query (Yang et al., 2016).
        scores = self.attention_context(torch.tanh(self.attention(hidden))).squeeze(2)
        weights = scores.float().masked_fill(~mask, float("-inf")).softmax(1).to(hidden.dtype)
        return (weights[..., None] * hidden).sum(1), weights
