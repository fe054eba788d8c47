"""How long a process waits for the others before it gives up."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch import distributed

LONG_WAIT = timedelta(hours=2)  # one process may write, compile, or read what the others need
SHORT_WAIT = timedelta(minutes=10)  # in a step


@contextmanager
def short_waits() -> Iterator[None]:
    """Under NCCL, operations that begin in this context wait only a short time.

    So a process that hangs does not keep the GPUs for hours. Under gloo nothing changes: it notices at once when a
    process is gone.
    """
    if not distributed.is_initialized() or "nccl" not in distributed.get_backend():
        yield
        return
    distributed.distributed_c10d._set_pg_timeout(SHORT_WAIT)
    try:
        yield
    finally:
        distributed.distributed_c10d._set_pg_timeout(LONG_WAIT)
