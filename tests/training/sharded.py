"""sharded.py RECIPE FLAGS...: a recipe under FSDP 2 on CPUs.

Accelerate offers FSDP on accelerators alone, and this machine may have none; what it does then with model, gradients
and state is the same on a CPU over gloo, so it is told that it may.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

SETTINGS = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_OFFLOAD_PARAMS": "false",
}
begin = AcceleratorState.__init__


def begin_sharded(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **others: Any) -> None:
    first = not self.initialized
    begin(self, *args, fsdp_plugin=fsdp_plugin, **others)
    if first:
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        if self._mixed_precision != "no":  # as it does on an accelerator
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    os.environ |= SETTINGS
    AcceleratorState.__init__ = begin_sharded
    sys.path.insert(0, str(Path(__file__).parents[2]))
    importlib.import_module(f"recipes.{sys.argv[1]}").main(sys.argv[2:])
