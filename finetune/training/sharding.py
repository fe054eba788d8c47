"""What FSDP needs to be told before Accelerate shards a model."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.fsdp import MixedPrecisionPolicy


def mixed_precision(accelerator: Accelerator) -> AbstractContextManager[Any]:
    """Around a forward pass: what sums, such as a loss, does so in float32. Accelerate does it for all but FSDP."""
    sharded = accelerator.distributed_type == DistributedType.FSDP
    return accelerator.autocast() if sharded else nullcontext()


def prepare_for_sharding(accelerator: Accelerator, model: Any) -> None:
    """Makes each layer a unit, under FSDP; does nothing under other engines.

    In mixed precision, parameters are sent and multiplied in it, gradients are summed in float32, and outputs stay
    what the model makes of them: the loss float32. Accelerate (1.15) would turn all of these into bfloat16.

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
    plugin = accelerator.state.fsdp_plugin
    policy = plugin.mixed_precision_policy
    if policy is not None and plugin.fsdp_version == 2:
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=policy.param_dtype, reduce_dtype=torch.float32
        )
    model._no_split_modules = [name for name in model._no_split_modules or () if not name.endswith("Embeddings")]
