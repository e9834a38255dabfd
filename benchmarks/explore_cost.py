"""Cost of the pages of `classlens explore` in a browser.

    python benchmarks/explore_cost.py --photos 5000

Prints JSON. ``gallery``: bytes of the page; milliseconds until its first paint and until it is drawn; frames of a
scroll to the end, how many took more than 50 ms, the longest, and CPU time of the main thread for each; elements in the
page at most; MB of the JavaScript heap before and after the scroll. Numbers of photos are drawn, and every thumbnail is
the same. Needs playwright, and chromium on the path or at CLASSLENS_CHROMIUM.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from classlens.analysis.gallery import GalleryTable
from classlens.analysis.gallery_columns import COLUMNS
from classlens.data.dataset import Dataset, ImageFiles
from classlens.render.gallery_record import gallery_record
from classlens.render.html.explore.gallery import gallery_page
from classlens.render.html.page import json_element
from classlens.render.thumbnails import thumbnail

_SCROLL = """
() => new Promise((done) => {
  const times = [performance.now()];
  let most = 0;
  function step() {
    times.push(performance.now());
    most = Math.max(most, document.querySelectorAll("*").length);
    if (scrollY + innerHeight >= document.documentElement.scrollHeight - 2) {
      done({ frames: times.slice(1).map((time, i) => time - times[i]), elements: most });
      return;
    }
    scrollBy(0, 300);
    requestAnimationFrame(step);
  }
  requestAnimationFrame(step);
})
"""


def gallery_text(photos: int) -> str:
    """The page of a gallery of drawn numbers."""
    rng = np.random.default_rng(0)
    classes = tuple(f"class {index}" for index in range(100))
    names = tuple(f"{classes[index % 100]}/photo {index:06}.jpg" for index in range(photos))
    label = rng.integers(0, 100, photos)
    prediction = np.where(rng.random(photos) < 0.2, rng.integers(0, 100, photos), label)
    images = pd.DataFrame({"index": np.arange(photos), "image": names, "label": label, "prediction": prediction})
    images["correct"] = (label == prediction).astype(float)
    images["confusion"] = np.where(label == prediction, np.nan, label)
    for name, column in COLUMNS.items():
        drawn = {"share": rng.random(photos), "number": rng.normal(size=photos), "whole": rng.integers(0, 12, photos)}
        images[name] = drawn[column.kind].astype(float)
    dataset = Dataset.whole("folder:photos", None, names, [-1] * photos, (), ImageFiles(Path("photos"), names))
    record = gallery_record(
        GalleryTable(images, {}, classes), {"model": "model", "data": "drawn"}, store="drawn.zarr", dataset=dataset
    )
    site = {"root": "../", "path": "s0/index.html", "live": True, "takes_photos": False, "largest_photo": 1}
    element = json_element("site-record", {**site, "store": 0, "title": "drawn", "links": []}, subject="the site")
    return gallery_page(record, element, version="benchmark")


@contextmanager
def served(page: str) -> Iterator[str]:
    """The address of a server of the page and of one thumbnail for all photos."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = thumbnail(Image.fromarray(pixels).resize((300, 300), Image.Resampling.BICUBIC))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, kind = (picture, "image/jpeg") if self.path.endswith(".jpg") else (page.encode(), "text/html")
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing is printed but the result."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A page drops pictures that have scrolled away."""

    server = Server(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/s0/index.html"
    finally:
        server.shutdown()
        server.server_close()


def gallery_cost(page: Any, photos: int) -> dict[str, Any]:
    """Facts of a gallery that is opened and scrolled to its end."""
    text = gallery_text(photos)
    with served(text) as address:
        page.goto(address)
        page.wait_for_selector("html[data-ready=true]")
        drawn = page.evaluate("performance.now()")
        page.wait_for_load_state("networkidle")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        before, busy = _heap(page), _main_thread(session)
        scroll = page.evaluate(_SCROLL)
        busy = _main_thread(session) - busy
        after = _heap(page)
    frames = scroll["frames"]
    return {
        "photos": photos,
        "page_bytes": len(text.encode()),
        "first_paint_ms": round(paint),
        "drawn_before_ms": round(drawn),
        "frames": len(frames),
        "frames_above_50_ms": sum(frame > 50 for frame in frames),
        "longest_frame_ms": round(max(frames)),
        "main_thread_ms_per_frame": round(1000 * busy / len(frames), 1),
        "most_elements": scroll["elements"],
        "heap_mb": [before, after],
    }


def _heap(page: Any) -> float:
    """MB of JavaScript objects after a collection of those that nothing refers to."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return round(float(used) / 1e6, 1)


def _main_thread(session: Any) -> float:
    """Seconds of CPU time of the main thread, which other programs on the machine do not change."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float({metric["name"]: metric["value"] for metric in metrics}["TaskDuration"])


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=5000)
    args = parser.parse_args()
    executable = os.environ.get("CLASSLENS_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, headless=True, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        report = {"gallery": gallery_cost(page, args.photos)}
        browser.close()
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
