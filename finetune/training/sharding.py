"""What FSDP needs to be told before Accelerate shards a model."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.fsdp import MixedPrecisionPolicy


def mixed_precision(accelerator: Accelerator) -> AbstractContextManager[Any]:
    """Autocast for a forward pass under FSDP, so that sums such as a loss are in float32.

    Accelerate does this itself for all other engines.
    """
    sharded = accelerator.distributed_type == DistributedType.FSDP
    return accelerator.autocast() if sharded else nullcontext()


def prepare_for_sharding(accelerator: Accelerator, model: Any) -> None:
    """Under FSDP, makes each layer a unit. Does nothing under other engines.

    In mixed precision, parameters are sent and multiplied in the low precision, and gradients are summed in float32.
    Outputs keep the type that the model gives them, so the loss is float32. Accelerate (1.15) would turn all of these
    into bfloat16.

    Accelerate (1.15) also makes a unit of the word embedding. It fails if another unit (`BertEmbeddings`) already
    contains the word embedding.

    Raises:
        ValueError: for a head that shares its weights with the word embedding. Its bias is in two modules. Accelerate
            puts these into different units, and torch refuses that.
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
