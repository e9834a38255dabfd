"""Latencies and memory of `classlens explore` under many readers: ``python benchmarks/explore_load.py``; prints JSON.

A server in a process of its own shows a store of photos that are drawn here. Clients ask for a mix of pages without a
pause; each keeps its connection. Latencies are milliseconds by kind of page, memory is the resident set of the server.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import classlens

MODEL = "builtin:cifar10"
MIX: dict[str, tuple[int, Callable[[random.Random, int], str]]] = {
    "start": (4, lambda rng, images: "/index.html"),
    "gallery": (3, lambda rng, images: "/s0/index.html"),
    "thumbnail": (12, lambda rng, images: f"/s0/thumbs/{rng.randrange(images)}.jpg"),
    "photo": (2, lambda rng, images: f"/s0/photos/{rng.randrange(images)}.html"),
    "class": (4, lambda rng, images: f"/s0/atlas/classes/{rng.randrange(10)}.html"),
    "head": (4, lambda rng, images: f"/s0/atlas/heads/{rng.randrange(6)}.{rng.randrange(4)}.html"),
}
"""Share of each kind of page, and an address of it."""


def make_store(folder: Path, images: int) -> None:
    """A store of drawn photos with contributions."""
    photos = folder / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(images):
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC).save(photos / f"{number:04}.jpg")
    classlens.measure(MODEL, f"folder:{photos}", folder / "store", attribution=True, units=16, workers=0)


def memory(process: int) -> float:
    """Resident set in MB; a number that Linux tells."""
    status = Path(f"/proc/{process}/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


class Client(threading.Thread):
    """A reader that asks for one page after another until a moment."""

    def __init__(self, seed: int, port: int, images: int, end: float) -> None:
        super().__init__()
        self._random, self._port, self._images, self._end = random.Random(seed), port, images, end
        self.latencies: dict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[str] = Counter()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        kinds, weights = list(MIX), [weight for weight, _ in MIX.values()]
        while time.monotonic() < self._end:
            (kind,) = self._random.choices(kinds, weights)
            begin = time.monotonic()
            try:
                connection.request("GET", MIX[kind][1](self._random, self._images))
                answer = connection.getresponse()
                answer.read()
                status = str(answer.status)
                self.latencies[kind].append(1000 * (time.monotonic() - begin))
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
                connection.close()
            self.statuses[f"{kind} {status}"] += 1


def load(store: Path, *, images: int, clients: int, seconds: float) -> dict[str, Any]:
    """Start a server, ask it, and stop it."""
    command = [sys.executable, "-m", "classlens", "explore", str(store), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline()
    port = int(address.rstrip("/\n").rpartition(":")[2])
    sizes = {"start": memory(server.pid)}
    begin = time.monotonic()
    readers = [Client(seed, port, images, begin + seconds) for seed in range(clients)]
    for reader in readers:
        reader.start()
    for part in ("quarter", "half", "three quarters"):
        time.sleep(seconds / 4)
        sizes[part] = memory(server.pid)
    for reader in readers:
        reader.join()
    sizes["end"] = memory(server.pid)
    took = time.monotonic() - begin
    server.send_signal(signal.SIGINT)
    stopping = time.monotonic()
    server.wait(60)
    latencies = {kind: [value for reader in readers for value in reader.latencies[kind]] for kind in MIX}
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "cpus": os.cpu_count(),
        "requests": sum(map(len, latencies.values())),
        "requests_per_second": round(sum(map(len, latencies.values())) / took, 1),
        "milliseconds": {kind: summary(values) for kind, values in latencies.items()},
        "answers": dict(sorted(sum((reader.statuses for reader in readers), Counter()).items())),
        "memory_mb": sizes,
        "seconds_to_stop": round(time.monotonic() - stopping, 2),
        "exit_code": server.returncode,
    }


def summary(values: list[float]) -> dict[str, float]:
    """Percentiles of latencies."""
    if not values:
        return {"count": 0}
    p50, p95, p99 = np.percentile(values, [50, 95, 99]).round(1).tolist()
    return {"count": len(values), "p50": p50, "p95": p95, "p99": p99, "largest": round(max(values), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_store(Path(folder), arguments.images)
        result = load(
            Path(folder) / "store", images=arguments.images, clients=arguments.clients, seconds=arguments.seconds
        )
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
