"""A Dask cluster as an executor: steps are sent to its workers, and those of a worker that dies are given to another."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from agent.errors import SprigError

_CONNECT_SECONDS = 10


class ClusterError(SprigError):
    """The cluster cannot be used."""


@contextmanager
def cluster_executor(address: str) -> Iterator[Executor]:
    """Connect to a scheduler, such as tcp://10.0.0.5:8786.

    Raises:
        ClusterError: the extra is not installed, nobody answers at the address, or there is no worker.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ClusterError("--scheduler needs the cluster extra: pip install '.[cluster]' in the checkout of Sprig") from None
    logging.getLogger("distributed").setLevel(logging.ERROR)  # a worker that dies is told by what becomes of its steps
    try:
        client = Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, ImportError) as e:
        said = " ".join(str(e).split())
        raise ClusterError(f"no Dask scheduler answers at {address}: {said or type(e).__name__}") from None
    try:
        if not client.scheduler_info()["workers"]:
            raise ClusterError(f"the scheduler at {address} has no worker; start one: dask worker {address} --nthreads 1")
        yield client.get_executor(pure=False)
    finally:
        client.close()
