"""Numbers of the page on comparisons: ``python docs/compare.py PHOTOS WORK [LIMIT]``.

The built-in model is fine-tuned on photos of its three breeds alone, and both are measured on test photos of all
classes. ``PHOTOS`` holds ``train/<class>/*.jpg`` and ``test``. ``WORK`` keeps the weights and both stores, so that a
stopped run continues. ``LIMIT`` is a number of test photos.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

import classlens
from classlens.data.class_mapping import map_classes
from classlens.models.builtin.photos import CLASS_NAMES, MODEL
from classlens.render.folders.comparison import write_comparison

BREEDS = ("Abyssinian", "Bengal", "american_bulldog")
EPOCHS, BATCH, RATE = 2, 16, 5e-6


def main(photos: Path, work: Path, limit: int | None) -> None:
    weights = work / "after.safetensors"
    if not weights.exists():
        fine_tune(photos, weights)
    for name, module in (("before", MODEL.trained()), ("after", tuned(weights))):
        lens = classlens.load(module, class_names=CLASS_NAMES, transform=MODEL.transform())
        data = classlens.open_dataset(f"folder:{photos / 'test'}", limit=limit, seed=0)
        classlens.measure(lens, data, work / f"{name}.zarr", attribution=True, workers=0)
    comparison = classlens.compare(work / "before.zarr", work / "after.zarr")
    write_comparison(comparison, work / "comparison", version=classlens.__version__)
    for name in ("summary", "classes", "flips"):
        print(comparison.tables[name].to_string())
    print(comparison.heads.head(10).to_string())


def tuned(weights: Path) -> Any:
    """The built-in model with other weights."""
    model = MODEL.untrained()
    model.load_state_dict(load_file(weights))
    return model.eval()


def fine_tune(photos: Path, weights: Path) -> None:
    """Train all weights on photos of the breeds, in a random order, and write them."""
    dataset = classlens.open_dataset(f"folder:{photos / 'train'}")
    model = MODEL.trained()
    lens = classlens.load(model, class_names=CLASS_NAMES, transform=MODEL.transform())
    labels = torch.as_tensor(map_classes(dataset, lens.classes, model_name=MODEL.name))
    chosen = [i for i, name in enumerate(dataset.names) if name.split("/")[0] in BREEDS]
    transform = MODEL.transform()
    pixels = torch.stack([transform(dataset.picture(i).convert("RGB")) for i in chosen])
    model = MODEL.trained().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(chosen), generator=generator).split(BATCH):
            loss = cross_entropy(model(pixels[batch]), labels[chosen][batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss of the last batch {loss.item():.3f}", flush=True)
    save_file(model.state_dict(), weights)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else None)
