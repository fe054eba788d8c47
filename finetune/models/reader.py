"""A recurrent reader for questions, similar to DrQA's (Chen et al., 2017).

A BiLSTM reads the passage. The features of a passage word are its vector, its characters' features, whether the
question contains it, and a mean of the question's word vectors, weighted by how well they fit the word. A second
BiLSTM reads the question. Two bilinear forms score where the answer begins and ends. Two linear functions of the
question score that there is no answer. (DrQA has three layers, part-of-speech and entity features, and no questions
without an answer.)

Shapes: B rows, T tokens, Q tokens of the longest question, P of the longest passage, E of a word, H hidden (both
directions).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from finetune.models.configuration import RecurrentConfig
from finetune.models.recurrent import (
    CELLS,
    RecurrentModel,
    RecurrentPreTrainedModel,
    places_of,
    run_recurrent,
    values_at,
)


class RecurrentForQuestionAnswering(RecurrentPreTrainedModel):
    """Predicts where an answer begins and ends, with recurrent networks over the question and the passage."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        E = config.embedding_size + (config.char_hidden_size if config.char_features != "none" else 0)
        H = config.hidden_size * (1 + config.bidirectional)
        self.encoder = RecurrentModel(config)  # reads the question
        self.alignment = nn.Linear(E, E)
        self.passage_recurrent = CELLS[config.cell](
            2 * E + 1, config.hidden_size, batch_first=True, bidirectional=config.bidirectional
        )
        self.question_weights = nn.Linear(H, 1, bias=False)
        self.start, self.end = nn.Linear(H, H), nn.Linear(H, H)
        self.no_answer = nn.Linear(H, 2)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput:
        """
        | input | dtype, shape |
        |---|---|
        | `input_ids` | int64 (B, T): a first token that stands for "no answer", the question, the passage |
        | `attention_mask` | int64 (B, T), padding on the right |
        | `token_type_ids` | int64 (B, T): 0 on the first token and the question, 1 on the passage |
        | `char_ids` | int64 (B, T, C), needed for character features |

        Returns: `start_logits` and `end_logits` (B, T), 0 on the question's tokens.
        """
        if token_type_ids is None:
            raise ValueError("this reader needs token_type_ids: 0 for the question, 1 for the passage")
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        asked = real.bool() & (token_type_ids == 0)
        told = real.bool() & (token_type_ids == 1)
        words = self.encoder.features(input_ids, real, char_ids)  # (B, T, E)
        question_at, question_real = places_of(asked)
        passage_at, passage_real = places_of(told)
        question, passage = values_at(words, question_at), values_at(words, passage_at)

        hidden_q = self.encoder.run_layers(question, question_real.sum(1).clamp(min=1))
        weights = self.question_weights(hidden_q).squeeze(2).float()  # (B, Q)
        weights = weights.masked_fill(~question_real, torch.finfo(weights.dtype).min).softmax(1)
        # An empty question asks for nothing, whatever the length of the other rows.
        weights = weights.masked_fill(~question_real, 0.0).to(hidden_q.dtype)
        asked_for = (weights[..., None] * hidden_q).sum(1)  # (B, H)

        fit = relu(self.alignment(passage)) @ relu(self.alignment(question)).transpose(1, 2)  # (B, P, Q)
        fit = fit.float().masked_fill(~question_real[:, None], torch.finfo(torch.float32).min).softmax(2)
        fit = fit.masked_fill(~question_real[:, None], 0.0)
        aligned = fit.to(question.dtype) @ question  # (B, P, E)
        keys = _words(input_ids, char_ids, self.config.unk_token_id)
        equal = keys.gather(1, passage_at)[:, :, None] == keys.gather(1, question_at)[:, None]  # (B, P, Q)
        same = (equal & question_real[:, None]).any(2)
        features = torch.cat([passage, aligned, same[..., None].to(passage.dtype)], dim=2)
        hidden_p = run_recurrent([self.passage_recurrent], self.dropout(features), passage_real.sum(1).clamp(min=1))
        hidden_p = self.dropout(hidden_p)
        asked_for = self.dropout(asked_for)
        none = self.no_answer(asked_for)  # (B, 2)
        logits = []
        for i, form in enumerate((self.start, self.end)):
            at_passage = (hidden_p @ form(asked_for)[..., None]).squeeze(2)  # (B, P)
            whole = at_passage.new_zeros(input_ids.shape)
            whole = whole.scatter_add(1, passage_at, at_passage * passage_real)
            logits.append(torch.cat([none[:, i : i + 1].to(whole.dtype), whole[:, 1:]], dim=1))
        return QuestionAnsweringModelOutput(start_logits=logits[0], end_logits=logits[1])


def _words(input_ids: Tensor, char_ids: Tensor | None, unknown: int) -> Tensor:
    """int64 (B, T): a number for each word, equal where two words are. Unknown words differ by their characters."""
    if char_ids is None:
        return input_ids
    # A hash of the bytes. Its sums stay below 2^53, which a double holds exactly: onnxruntime adds integers as such.
    # `full` fills on the device; `tensor` would copy to it, and wait.
    powers = torch.cat([input_ids.new_full((1,), power) for power in _powers(char_ids.shape[2])])
    return torch.where(input_ids == unknown, (char_ids.long() * powers).sum(2), input_ids)


def _powers(n: int) -> list[int]:
    """1,000,003 to the powers of 1 to n, modulo 2^40."""
    return [pow(1_000_003, k, 2**40) for k in range(1, n + 1)]
