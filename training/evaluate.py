"""Accuracy of the built-in model on the CIFAR-10 test set, in total and by class, as JSON.

    python training/evaluate.py --data CIFAR10_FOLDER [--weights RUN_FOLDER/weights.safetensors]

Without ``--weights``, it evaluates the weights of the package, in float32 as ``classlens.load`` loads them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from data import normalize, read_split
from safetensors.torch import load_file
from tqdm import tqdm

from classlens.models import builtin
from classlens.models.builtin.architecture import CLASS_NAMES


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with test/<class>/*.jpg")
    parser.add_argument("--weights", type=Path)
    args = parser.parse_args()
    model = builtin.load("cifar10")
    if args.weights:
        model.load_state_dict({key: value.float() for key, value in load_file(args.weights).items()}, strict=False)
    images, labels = read_split(args.data, "test")
    predicted = torch.cat([model(normalize(part)).argmax(1) for part in tqdm(images.split(250), unit="batch")])
    confusion = torch.zeros(len(CLASS_NAMES), len(CLASS_NAMES), dtype=torch.int64)
    confusion.index_put_((labels, predicted), torch.ones_like(labels), accumulate=True)
    accuracy = confusion.diag() / confusion.sum(1)
    confused_with = confusion.clone().fill_diagonal_(0).argmax(1)
    report = {
        "images": len(labels),
        "accuracy": float((predicted == labels).double().mean()),
        "by_class": {name: round(float(accuracy[i]), 4) for i, name in enumerate(CLASS_NAMES)},
        "most_often_taken_for": {
            name: [CLASS_NAMES[int(confused_with[i])], int(confusion[i, confused_with[i]])]
            for i, name in enumerate(CLASS_NAMES)
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
