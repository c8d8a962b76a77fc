"""Data of TensorFlow Datasets (TFDS) that are not there yet: downloaded, or refused in seconds."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable
from typing import Any

from augmix_tf import errors
from augmix_tf.data import tfds_files

PROBE_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443, "ftp": 21}


def is_prepared(builder: Any) -> bool:
    """Whether the data are there; TFDS writes this file last."""
    directory = builder.data_path
    if (directory / "dataset_info.json").exists():
        return True
    if directory.exists():
        # TFDS would take it for prepared as well, and fail on it later.
        raise errors.FileError(
            f"{directory} is incomplete (no dataset_info.json): remove it and prepare it again"
        )
    return False


def prepare(builder: Any, name: str, download: bool) -> None:
    """Lets TFDS download and prepare what is missing, if it may and can."""
    import tensorflow_datasets as tfds

    missing = _missing(builder)
    command = f"tfds.load({name!r}, data_dir={os.fspath(builder.data_dir_root)!r})"
    command = f'python -c "import tensorflow_datasets as tfds; {command}"'
    by_hand = _by_hand(builder)
    if by_hand:
        raise errors.FileError(f"{missing}, and TFDS cannot download it: {by_hand}")
    if not download:
        raise errors.FileError(f"{missing}; prepare it with `{command}`, or allow the download")
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        said = f"Preparing {builder.info.full_name} in {builder.data_dir_root}"
        print(said, file=sys.stderr, flush=True)
    else:
        _require_network(builder, missing, command)
    progress = sys.stderr.isatty()
    if not progress:
        tfds.disable_progress_bar()
    try:
        # TFDS prints to stdout what has been announced on stderr.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except Exception as error:  # network, disk, or the set's own code: all beyond our power
        failed = f"cannot download and prepare {builder.info.full_name}: {tfds_files.reason(error)}"
        raise errors.FileError(f"{failed}; try it apart with `{command}`") from error
    finally:
        if not progress:
            tfds.enable_progress_bar()


def _by_hand(builder: Any) -> str:
    """Where the files belong that users bring themselves; "" where they are, or none are wanted."""
    words = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    place = builder.data_dir_root / "downloads" / "manual"
    if not words or (place.is_dir() and any(place.iterdir())):
        return ""
    return f"put its files into {place} and start again. TFDS says: {words}"


def _require_network(builder: Any, missing: str, command: str) -> None:
    urls = builder.url_infos or {}
    _announce(builder, urls)
    unreachable = _unreachable(urls or [builder.info.homepage])
    if unreachable:
        raise errors.FileError(
            f"{missing} and cannot be downloaded: {unreachable}; where there is a network, "
            f"prepare it with `{command}`"
        )


def _missing(builder: Any) -> str:
    """What was looked for and not found, and where."""
    root, place = os.fspath(builder.data_dir_root), builder.data_path
    if "://" not in root and not os.path.exists(root):
        return f"{builder.info.full_name} is not there: no data directory {root}"
    text = f"{builder.info.full_name} is not in the data directory {root} (no {place})"
    others = sorted(path.parent.name for path in place.parent.glob("*.*.*/dataset_info.json"))
    return f"{text}; it holds version {', '.join(others)}" if others else text


def _announce(builder: Any, urls: dict[str, Any]) -> None:
    hosts = sorted({urllib.parse.urlsplit(url).hostname or url for url in urls})
    size = sum(info.size for info in urls.values()) / 2**20
    amount = f" (up to {size:.0f} MiB)" if size else ""
    origin = f" from {', '.join(hosts)}" if hosts else ""
    text = f"Downloading {builder.info.full_name}{amount}{origin} to {builder.data_dir_root}"
    print(text, file=sys.stderr, flush=True)


def _unreachable(urls: Iterable[str]) -> str:
    """Says why none of the hosts of `urls` answers; "" when one does, or none is known.

    One is enough: lists of addresses hold some that are no longer used.
    """
    targets = sorted({target for url in urls if (target := _target(url)) is not None})[:8]
    answers: queue.Queue[str] = queue.Queue()
    for target in targets:
        # A daemon, because looking up a name cannot be given a time limit.
        threading.Thread(target=_knock, args=(*target, answers), daemon=True).start()
    deadline = time.monotonic() + PROBE_SECONDS
    answer = ""
    for _ in targets:
        try:
            answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return f"no answer from {targets[0][0]} within {PROBE_SECONDS:g} seconds"
        if not answer:
            break
    return answer


def _target(url: str) -> tuple[str, int] | None:
    """Host and port to connect to for `url`: its own, or those of a proxy in front of it."""
    parts = urllib.parse.urlsplit(url or "")
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    if not urllib.request.proxy_bypass(parts.hostname):
        proxies = urllib.request.getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if proxy:
            parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if not parts.hostname:
        return None
    return parts.hostname, parts.port or _PORTS.get(parts.scheme, 80)


def _knock(host: str, port: int, answers: queue.Queue[str]) -> None:
    """Puts "" for a host that accepts a connection, else why it does not."""
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        answers.put(f"no connection to {host}:{port} ({error.strerror or error})")
    else:
        answers.put("")
