"""Accuracy, confusions and calibration of a built-in model on its test set, as JSON.

    python training/evaluate.py --model cifar10 --data CIFAR10_FOLDER [--weights RUN_FOLDER/weights.safetensors]

``--data`` holds ``test/<class>/*.jpg``. The class folders are those of the model's classes in the order of
``classes.txt``, whose lines begin with a folder, or in alphabetical order without that file. Without ``--weights``, it
evaluates the weights of the package, as ``classlens.load`` loads them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from sklearn.metrics import log_loss
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from tqdm import tqdm

from classlens.models.builtin import MODELS
from classlens.models.builtin.row_quantization import restore

BINS = 15


class TestImages(ImageFolder):  # type: ignore[misc]
    """Images of class folders, in the order of ``classes.txt`` beside the split."""

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        listed = Path(directory).parent / "classes.txt"
        if not listed.exists():
            found: tuple[list[str], dict[str, int]] = super().find_classes(directory)
            return found
        folders = [line.split("\t")[0] for line in listed.read_text().splitlines() if line]
        return folders, {folder: index for index, folder in enumerate(folders)}


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error with bins of equal width of the top-1 probability (Guo et al. 2017, equation 3)."""
    confidence, predicted = probabilities.max(1)
    correct = (predicted == labels).double()
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    differences = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, correct - confidence.double())
    return float(differences.abs().sum() / len(labels))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name.removeprefix("builtin:") for name in MODELS]
    parser.add_argument("--model", choices=names, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with test/<class>/*.jpg")
    parser.add_argument("--weights", type=Path, help="weights of a run instead of those of the package")
    args = parser.parse_args()
    entry = MODELS[f"builtin:{args.model}"]
    if args.weights:
        model = entry.untrained()
        model.load_state_dict(restore(load_file(args.weights)), strict=False)
    else:
        model = entry.trained()
    images = TestImages(args.data / "test", entry.transform())
    if len(images.classes) != len(entry.class_names):
        raise SystemExit(
            f"{args.data / 'test'} has {len(images.classes)} class folders, expected {len(entry.class_names)}"
        )
    labels = torch.tensor(images.targets)
    logits = torch.cat([model(pixels) for pixels, _ in tqdm(DataLoader(images, 64), unit="batch")])
    probabilities = logits.double().softmax(1)
    predicted = logits.argmax(1)
    confusion = torch.zeros(len(images.classes), len(images.classes), dtype=torch.int64)
    confusion.index_put_((labels, predicted), torch.ones_like(labels), accumulate=True)
    accuracy = confusion.diag() / confusion.sum(1)
    others = confusion.clone().fill_diagonal_(0)
    report = {
        "images": len(labels),
        "accuracy": round(float((predicted == labels).double().mean()), 4),
        "mean_confidence": round(float(probabilities.amax(1).mean()), 4),
        "calibration_error": round(calibration_error(probabilities, labels), 4),
        "log_loss": round(log_loss(labels, probabilities, labels=range(len(images.classes))), 4),
        "by_class": {name: round(float(accuracy[i]), 4) for i, name in enumerate(entry.class_names)},
        "most_often_taken_for": {
            name: [entry.class_names[int(others[i].argmax())], int(others[i].max())]
            for i, name in enumerate(entry.class_names)
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
