"""The machine and the versions of packages, for reports of measured numbers."""

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil
import torch

from finetune import __version__

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "scikit-learn", "numpy")


def machine() -> dict[str, str]:
    """The processor, threads, memory, GPU, Python and packages. It has no name of a host or a user."""
    information = Path("/proc/cpuinfo")
    names = (
        [line for line in information.read_text().splitlines() if line.startswith("model name")]
        if information.exists()
        else []
    )
    processor = names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
    found = {
        "processor": f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
    }
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    found["precision"] = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").replace("no", "float32")
    found["system"] = f"{platform.system()}, Python {platform.python_version()}"
    found["packages"] = ", ".join(f"{name} {version}" for name, version in versions().items())
    return found


def versions() -> dict[str, str]:
    """The versions of this project, and of packages on which a measured number may depend."""
    return {"finetune": __version__} | {name: metadata.version(name) for name in PACKAGES}
