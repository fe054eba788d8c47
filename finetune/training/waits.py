"""How long a process waits for the others before it gives them up."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch import distributed

LONG_WAIT = timedelta(hours=2)  # while one process writes, or compiles, or reads what the others need
SHORT_WAIT = timedelta(minutes=10)  # in a step


@contextmanager
def short_waits() -> Iterator[None]:
    """Under NCCL, what begins in here waits for a short time: a process that hangs does not keep the GPUs for hours.

    Elsewhere nothing changes: a process of gloo that is gone is noticed at once.
    """
    if not distributed.is_initialized() or "nccl" not in distributed.get_backend():
        yield
        return
    distributed.distributed_c10d._set_pg_timeout(SHORT_WAIT)
    try:
        yield
    finally:
        distributed.distributed_c10d._set_pg_timeout(LONG_WAIT)
