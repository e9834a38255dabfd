"""How much memory a result takes while it is made, on a trace of a middling size.

The peak of the resident set is what the machine runs out of, and it counts every allocator alike: torch's, numpy's and
those of the matrix libraries. Linux resets the peak on demand. A process of its own keeps other tests out of the sum.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RESET = Path("/proc/self/clear_refs")
IMAGES, BLOCKS, TOKENS, CLASSES = 48, 8, 197, 1000

MEASURE = """
import json, sys
import torch
from timm.models.vision_transformer import VisionTransformer
import classlens

torch.set_num_threads(1)
images, blocks, classes = map(int, sys.argv[1:])
model = VisionTransformer(embed_dim=16, depth=blocks, num_heads=2, mlp_ratio=1, num_classes=classes)
lens = classlens.load(model)
pixels = torch.randn(images, 3, 224, 224)


def field(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


def peak(measure):
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    before = field("VmRSS")
    result = measure()
    return field("VmHWM") - before


every = ("attn_out", "resid_mid", "mlp_out", "resid_post")
small = lens.trace(pixels[:1])
# The first call of each kind sets up libraries.
small.logits("mlp_out"), small.facts(every, 0), small.top("mlp_out"), small.explain(0, method="class_gradient")
small.attention(), small.states(), small.explain(0, method="log_odds")
trace = lens.trace(pixels)
print(json.dumps({
    "a pass": peak(lambda: lens.trace(pixels[:8])),
    "logits": peak(lambda: trace.logits("resid_mid")),
    "top": peak(lambda: trace.top("resid_mid")),
    "facts": peak(lambda: trace.facts(every, 0)),
    "facts of a pass": peak(lambda: lens.facts(pixels, every, 0, batch_size=8)),
    "explain": peak(lambda: trace.explain(0, method="class_gradient")),
    "log odds": peak(lambda: trace.explain(0, method="log_odds")),
    "attention": peak(lambda: trace.attention(blocks=[1], heads=[0], queries="image")),
    "states": peak(lambda: trace.states(blocks=[1, 7], tokens="cls")),
}))
"""


def _resettable() -> bool:
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(not _resettable(), reason="the peak of the resident set cannot be reset here (Linux only)")
def test_results_take_little_more_than_themselves() -> None:
    arguments = [str(number) for number in (IMAGES, BLOCKS, CLASSES)]
    done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout)
    megabyte = 2**20
    result = IMAGES * BLOCKS * TOKENS * CLASSES * 4
    assert result > 280 * megabyte
    # The result must at least be in the measurement, or nothing is measured.
    assert result * 0.98 < peaks["logits"] < result * 1.1
    # Logits of one site and block are 36 MiB, of all that is asked for 1.1 GiB: they are reduced a few MiB at a time.
    for name in ("facts", "explain", "log odds", "states"):
        assert peaks[name] < 24 * megabyte, (name, peaks)
    # The result, and both heads of one block before that: of all blocks they are 119 MiB.
    attention = IMAGES * TOKENS * 196 * 4
    assert attention < peaks["attention"] < 5 * attention, peaks
    # Where pyarrow is installed, pandas 3 copies the 378,240 class names of this result on the way; logits of a whole
    # block would still be too much.
    assert peaks["top"] < 64 * megabyte, peaks
    # Beside the pass over eight images, the logits of eight images (6 MiB) and some scratch.
    assert peaks["facts of a pass"] < peaks["a pass"] + 24 * megabyte, peaks
