"""More than one machine: the work of ``compress``, tensor by tensor, on the workers of a dask.distributed cluster.

    with workers("tcp://10.0.0.1:8786") as mapper:
        delta = compress(open_checkpoint(base), open_checkpoint(expert), mapper=mapper)

Workers read the tensors themselves, so that both paths must lead to the same files on every machine. What a worker had
not finished when it died is done by another.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from dts_mini.core.errors import DTSError
from dts_mini.core.frame import Mapper


@contextmanager
def workers(scheduler: str, *, timeout: float = 10) -> Iterator[Mapper]:
    """The ``mapper`` of ``compress`` that works on the cluster of a scheduler, at its address (tcp://host:port).

    The result is byte for byte that of this process: workers compute with as many threads as it does (sums of floats
    depend on that), each tensor in one place. DTSError when no scheduler answers within ``timeout`` seconds, or when
    worker after worker dies on the same tensor.
    """
    try:
        from distributed import Client  # of the extra "full", and slow to import
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise DTSError("a cluster needs dask and distributed: pip install 'dts_mini[full]'") from error
    try:
        client = Client(scheduler, timeout=timeout, set_as_default=False)
    except (OSError, ValueError) as error:
        raise DTSError(f"no scheduler answers at {scheduler} ({error}); start one with dask scheduler") from error

    def mapper(work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        futures = client.map(partial(_with_threads, torch.get_num_threads(), work), jobs, pure=False)
        for job, future in zip(jobs, futures, strict=True):
            try:
                yield future.result()
            except KilledWorker as error:
                raise DTSError(
                    f"tensor {getattr(job, 'name', job)!r}: worker after worker died on it, by their logs perhaps "
                    "for lack of memory; give them more, or start fewer on a machine"
                ) from error

    with client:
        yield mapper


def _with_threads(threads: int, work: Callable[[Any], Any], job: Any) -> Any:
    torch.set_num_threads(threads)
    return work(job)
