"""Fine-tuning with only those rows of the word embedding that the data uses.

XLM-R base has 278 million parameters. 192 million of them are in its embedding, and a data set looks up a few
thousand of its rows. AdamW works on all rows at every step, although a row without a gradient only decays. Here AdamW
gets only the used rows. The others decay later, by the same factors that the optimizer would have used, one after the
other. So the saved model has the shape of a model that was trained whole, and on a CPU the same values, bit for bit.

Shapes: V pieces of the vocabulary, U used ones, H size of a row.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

# How many numbers decay together. They stay in the cache of the processor or the GPU until all factors are applied.
_CHUNK = {"cpu": 2**15, "cuda": 2**21}
_MOST_FACTORS = 32  # so many may wait: a checkpoint after a SIGTERM must not take long


class CompactEmbedding(nn.Module):
    """Stands in for an `nn.Embedding`: ids in 0..V-1 go in, `weight` (U, H) trains, `state_dict()` has (V, H)."""

    def __init__(self, whole: nn.Embedding, used: Tensor) -> None:
        """`used`: int64 (U,), distinct and ascending."""
        super().__init__()
        table = whole.weight.detach()
        self.weight = nn.Parameter(table[used], requires_grad=whole.weight.requires_grad)
        row_of = torch.full((len(table),), -1, dtype=torch.int64)
        row_of[used] = torch.arange(len(used))
        self.register_buffer("row_of", row_of, persistent=False)
        padding = -1 if whole.padding_idx is None else int(row_of[whole.padding_idx])
        self.padding_idx = None if padding < 0 else padding
        # Not buffers: these stay in the computer's memory when the model goes to a GPU.
        self._used, self._table = used, table.cpu()
        self._factors: list[float] = []
        self.register_state_dict_post_hook(_with_whole_table)
        self.register_load_state_dict_pre_hook(_from_whole_table)

    def forward(self, input_ids: Tensor) -> Tensor:
        """int64 of any shape -> (..., H). Raises IndexError for an id that is not used."""
        row_of: Any = self.row_of
        return nn.functional.embedding(row_of[input_ids], self.weight, self.padding_idx)

    @property
    def num_embeddings(self) -> int:
        """V."""
        return len(self._table)

    def decay_unused(self, factor: float) -> None:
        """Multiplies the unused rows by `factor`, in float32. It is done later, before the rows are read again."""
        if factor != 1.0:
            self._factors.append(factor)
        if len(self._factors) >= _MOST_FACTORS:
            self._decay()

    def whole_table(self) -> Tensor:
        """The embedding as it would be if all its rows had been trained: (V, H), in the computer's memory."""
        self._decay()
        self._table[self._used] = self.weight.detach().to(self._table)
        return self._table

    def _decay(self) -> None:
        device = self.weight.device
        chunks = self._table.view(-1).split(_CHUNK.get(device.type, _CHUNK["cuda"])) if self._factors else ()
        for chunk in chunks:
            if device.type == "cpu":
                for factor in self._factors:
                    chunk.mul_(factor)
            else:  # CUDA's fused AdamW multiplies in float64, and rounds to float32 at each step
                part = chunk.to(device)
                for factor in self._factors:
                    part = part.double().mul_(factor).float()
                chunk.copy_(part)
        self._factors.clear()


def _with_whole_table(module: Any, state_dict: dict[str, Any], prefix: str, metadata: Any) -> None:
    state_dict[f"{prefix}weight"] = module.whole_table()


def _from_whole_table(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    whole = state_dict.get(f"{prefix}weight")
    if whole is not None and whole.shape == module._table.shape:
        module._table.copy_(whole)
        module._factors.clear()
        state_dict[f"{prefix}weight"] = module._table[module._used]


def compact_vocabulary(model: PreTrainedModel, tokenizer: Any, input_ids: Iterable[np.ndarray]) -> tuple[int, int]:
    """Makes the word embedding train only the rows of `input_ids`. The saved model is still the whole one.

    The embedding stays as it is if all its rows are used, or if another part of the model shares it, such as a head
    that predicts words.

    Args:
        tokenizer: its special tokens count as used.
        input_ids: int arrays with every id that the model will see, in training and in evaluation.

    Returns:
        The number of rows that train, and the number of rows of the whole embedding.
    """
    whole: Any = model.get_input_embeddings()
    holders = [
        (module, name)
        for module in model.modules()
        for name, value in [*module.named_children(), *module.named_parameters(recurse=False)]
        if value is whole or value is whole.weight
    ]
    (parent, name), *others = [holder for holder in holders if holder[0] is not whole]
    ids = np.unique(np.concatenate([*map(np.unique, input_ids), tokenizer.all_special_ids]))
    if others or len(ids) >= whole.num_embeddings:
        return whole.num_embeddings, whole.num_embeddings
    setattr(parent, name, CompactEmbedding(whole, torch.from_numpy(ids.astype(np.int64))))
    return len(ids), whole.num_embeddings
