"""What FSDP needs to be told of a model before Accelerate shards it."""

from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType


def prepare_for_sharding(accelerator: Accelerator, model: Any) -> None:
    """Makes each layer a unit, under FSDP; does nothing under other engines.

    Accelerate (1.15) makes a unit of the word embedding, too, and fails where another unit (`BertEmbeddings`) has
    taken it already.

    Raises:
        ValueError: for a head whose weights are the word embedding's: its bias is in two modules, which Accelerate
            puts into different units, and torch refuses that.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    head = model.get_output_embeddings()
    if head is not None and head.weight is model.get_input_embeddings().weight:
        raise ValueError(
            "FSDP cannot shard a masked-token head that shares its weights with the word embedding; launch with "
            "recipes/configs/accelerate/many_gpus.yaml, where each process has the whole model"
        )
    model._no_split_modules = [name for name in model._no_split_modules or () if not name.endswith("Embeddings")]
