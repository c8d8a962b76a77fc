"""Work for several processes that start fresh, without TensorFlow."""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from augmix_tf import checks
from augmix_tf.corruptions.arrays import check_whole

T = TypeVar("T")


def worker_count(workers: int | None) -> int:
    """Returns `workers`, or how many cores this process may use.

    Raises:
        CommandError: `workers` is no whole number from 1 on.
    """
    if workers is not None:
        return check_whole("workers", workers, 1)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _prepare() -> None:
    # OpenCV's own threads would only get in each other's way.
    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole group of processes; the one that started this one tells it to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A killed parent can tell nobody, and its processes would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def results(tasks: Iterable[Callable[[], T]], workers: int) -> Generator[T, None, None]:
    """Yields the results of `tasks` in their order.

    With one worker they run here. Otherwise in processes that are spawned, not forked: a fork
    would copy whatever threads and memory TensorFlow has by now. Only a few tasks are taken ahead.

    Raises:
        RunError: a process died.
    """
    if workers == 1:
        for task in tasks:
            yield task()
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare)
    ahead: collections.deque[Future[T]] = collections.deque()
    try:
        for task in tasks:
            ahead.append(pool.submit(task))
            if len(ahead) > 3 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BrokenProcessPool as error:
        raise checks.RunError("a worker process died; was there enough memory?") from error
    finally:
        pool.shutdown(cancel_futures=True)
