"""Span heads for questions: where in the passage does the answer begin, and where does it end?

The softmax of a model's own head covers all tokens of the padded input, also the question, the separators and the
padding. So its loss depends on the other rows of the batch. Here the softmax covers the passage and the first token,
which stands for "no answer".

Shapes: B rows, T tokens of the longest, n spans of a row.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.modeling_outputs import QuestionAnsweringModelOutput


def answer_within_passage(model: PreTrainedModel) -> PreTrainedModel:
    """Gives a model with a span head a forward whose softmax is over the passage alone.

    Inputs of the new forward:

    | key | dtype, shape | meaning |
    |---|---|---|
    | `input_ids`, `attention_mask`, `token_type_ids`, `char_ids` | as the model has them | |
    | `passage` | int64 (B, T) | 1 where an answer may stand; without it, every token that is no padding |
    | `start_positions`, `end_positions` | int64 (B,) | the first and the last token of the answer; 0: no answer |

    It returns `loss` (the mean over the rows of the mean of both cross-entropies), and `start_logits` and
    `end_logits` (B, T) in float32, the lowest number where no answer may stand.
    """
    model.forward = MethodType(_forward, model)
    return model


def _forward(
    self: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    passage: Tensor | None = None,
    start_positions: Tensor | None = None,
    end_positions: Tensor | None = None,
    **inputs: Any,
) -> QuestionAnsweringModelOutput:
    # The class's forward, not the one that this model had: a copy of the model must not call the original.
    output = type(self).forward(self, input_ids=input_ids, attention_mask=attention_mask, **inputs)
    allowed = passage if passage is not None else attention_mask
    start_logits, end_logits = (
        _masked(logits.float(), allowed) for logits in (output.start_logits, output.end_logits)
    )
    loss = None
    if start_positions is not None and end_positions is not None:
        loss = (cross_entropy(start_logits, start_positions) + cross_entropy(end_logits, end_positions)) / 2
    return QuestionAnsweringModelOutput(loss=loss, start_logits=start_logits, end_logits=end_logits)


def _masked(logits: Tensor, allowed: Tensor | None) -> Tensor:
    # The lowest number and not minus infinity, since minus infinity times 0 would be NaN.
    return logits if allowed is None else logits.masked_fill(~allowed.bool(), torch.finfo(logits.dtype).min)


def best_spans(
    start_logits: Tensor, end_logits: Tensor, passage: Tensor, *, n_best: int, max_answer_length: int
) -> dict[str, Tensor]:
    """The spans of each row with the highest sums of logits, of at most `max_answer_length` tokens.

    Args:
        start_logits, end_logits: (B, T); the first column is "no answer".
        passage: int (B, T), 1 where an answer may stand.

    Returns:
        `starts`, `ends`: int64 (B, n), positions in the row.
        `scores`: float32 (B, n), in descending order. A score is the sum of the two logits minus the same sum for
        "no answer". It is the logarithm of how many times as likely the span is. So scores of different windows can
        be compared. If a row has fewer than n spans, the further scores are minus infinity.
    """
    T = start_logits.shape[1]
    allowed = passage.bool().clone()
    allowed[:, 0] = False
    low = float("-inf")
    starts = start_logits.float().masked_fill(~allowed, low)
    ends = end_logits.float().masked_fill(~allowed, low)
    longest = max_answer_length if torch.onnx.is_in_onnx_export() else min(max_answer_length, T)
    # (B, longest, T): [b, d, t] is the span from t to t + d.
    padded = torch.nn.functional.pad(ends, (0, longest - 1), value=low)
    sums = starts[:, None] + torch.stack([padded[:, d : d + T] for d in range(longest)], dim=1)
    columns = torch.arange(T, device=sums.device).expand(longest, T).flatten()
    steps = torch.arange(longest, device=sums.device)[:, None].expand(longest, T).flatten()
    # However short a row is, it has n spans, so that the rows of all batches have the same shape.
    columns, steps = (torch.nn.functional.pad(places, (0, n_best)) for places in (columns, steps))
    scores, flat = torch.nn.functional.pad(sums.flatten(1), (0, n_best), value=low).topk(n_best, dim=1)
    begin = columns[flat]
    none = start_logits[:, :1].float() + end_logits[:, :1].float()
    return {"starts": begin, "ends": begin + steps[flat], "scores": scores - none}
