"""Each variant of a work in a process of its own: its peak memory is its own, and variants can take turns."""

import multiprocessing
from contextlib import nullcontext
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext

import torch

from mindvis.benchmarks.data import first_batch
from mindvis.benchmarks.evaluation import n_way, pairwise_ssim
from mindvis.benchmarks.machine import count_flops, peak_bytes, timed
from mindvis.benchmarks.plain import plain_layers
from mindvis.benchmarks.sampling import pictures, unet_evaluation
from mindvis.benchmarks.training import stage_a, stage_b
from mindvis.benchmarks.work import Usage, Variant
from mindvis.config.tools import BenchmarkConfig

WORKS = {
    work.__name__: work for work in (stage_a, stage_b, unet_evaluation, pictures, pairwise_ssim, n_way, first_batch)
}
FOLLOWS_ITSELF = ("stage_a", "stage_b", "unet_evaluation")  # a step comes after a step, not after a rest of its process


class Worker:
    """A process that has made a work ready, and times one call whenever asked to."""

    def __init__(self, config: BenchmarkConfig, variant: Variant):
        context = _context()
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, config, variant), daemon=True)
        self._process.start()
        theirs.close()
        self.name, self.items, self.unit = self._receive()

    def seconds(self) -> float:
        """Time of one call."""
        self._connection.send("time")
        return self._receive()

    def close(self) -> Usage:
        """End the process; what it has taken."""
        self._connection.send("close")
        usage = self._receive()
        self._process.join()
        return usage

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def _receive(self) -> object:
        try:
            answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"a benchmark process ended with status {self._process.exitcode}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _context() -> BaseContext:
    """Processes that start from one which has imported everything and computed nothing; where there is none, anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _serve(connection: Connection, config: BenchmarkConfig, variant: Variant) -> None:
    try:
        _time_on_request(connection, config, variant)
    except Exception as error:  # to be raised where it can be shown
        connection.send(error)


def _time_on_request(connection: Connection, config: BenchmarkConfig, variant: Variant) -> None:
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    work = WORKS[variant.work](config, variant)
    try:
        with plain_layers() if variant.plain else nullcontext():
            work.call()  # the first call makes what later ones find: optimiser state, kept casts, mapped pages
            connection.send((work.name, work.items, work.unit))
            while connection.recv() == "time":
                if variant.work in FOLLOWS_ITSELF:
                    work.call()  # others have had their turn: memory that was left alone is slow at first
                connection.send(work.scale * timed(work.call, config.device))
        peak = peak_bytes(config.device)  # before counting, which keeps tensors of its own
        connection.send(Usage(peak, work.scale * count_flops(work.call)))
    finally:
        work.close()
