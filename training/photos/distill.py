"""Train a small ViT for photos by distillation from a larger ViT.

    python training/photos/distill.py --data PHOTOS_FOLDER --teacher WEIGHTS.safetensors --out RUN_FOLDER

``PHOTOS_FOLDER`` holds ``train/<class>/*.jpg``, ``test/<class>/*.jpg`` and ``classes.txt``. The same command resumes a
stopped run after the last finished epoch. Order, crops and kept tokens depend on ``--seed`` and the epoch alone. The
run ends by writing ``RUN_FOLDER/weights.safetensors`` in 8 bits. ``training/README.md`` explains the recipe.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from photos import Photos, center, crop, normalize, read_split, shrink
from safetensors.torch import save_file
from student import REACHED, Model, logits, refit_head, start, tokens
from teacher import SIDE, load_teacher
from timm.optim import Lamb
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from classlens.models.builtin.photos import build
from classlens.models.builtin.row_quantization import quantize

Answer = tuple[Tensor, list[Tensor]]
"""Targets of a batch by the teacher: logits ``[batch, classes]`` and normalized states ``[batch, 1 + kept, dim]``."""

GRID = 14 * 14
"""Image tokens of a photo."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, test/ and classes.txt")
    parser.add_argument("--teacher", type=Path, required=True, help="weights of timm's vit_small_patch14_dinov2")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, for checkpoint, log and weights")
    parser.add_argument("--epochs", type=int, default=8, help="number of epochs")
    parser.add_argument("--repeats", type=int, default=2, help="epochs that show the same crops and tokens")
    parser.add_argument("--kept", type=int, default=64, help="image tokens kept of the 196")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a batch")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate, as a share of each tensor's norm")
    parser.add_argument("--weight-decay", type=float, default=0.01, help="weight decay")
    parser.add_argument("--temperature", type=float, default=2.0, help="temperature of the soft targets")
    parser.add_argument("--feature-weight", type=float, default=1.0, help="weight of the loss of token states")
    parser.add_argument("--head-strength", type=float, default=0.03, help="inverse of the L2 penalty of the last head")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--start-photos", type=int, default=192, help="photos of the least squares of the start")
    parser.add_argument("--validation", type=int, default=20, help="held-out training photos of each class")
    parser.add_argument("--threads", type=int, default=0, help="number of CPU threads; 0 for torch's default")
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast, for CPUs that compute in it")
    return parser.parse_args()


@dataclass
class View:
    """One batch as the student sees it, with the answer of the teacher."""

    pixels: Tensor
    kept: Tensor
    answer: Answer


class Views:
    """Batches of photos, cropped anew every ``--repeats`` epochs; the teacher is asked once for each.

    Which photos, crops and tokens a batch has depends on its number, the seed and the epoch alone.
    """

    def __init__(self, photos: Photos, teacher: Model, args: argparse.Namespace) -> None:
        self.photos, self.teacher, self.args = photos, teacher, args
        self.count = len(photos) // args.batch_size
        self._set = -1
        self._answers: dict[int, Answer] = {}

    def order(self, epoch: int) -> list[int]:
        """Numbers of the batches in the order of an epoch."""
        return torch.randperm(self.count, generator=self._generator(epoch)).tolist()

    def __call__(self, epoch: int, number: int) -> View:
        """Batch ``number`` of an epoch."""
        chosen = epoch // self.args.repeats
        if chosen != self._set:
            self._set, self._answers = chosen, {}
        index = torch.randperm(len(self.photos), generator=self._generator(chosen, 1)).split(self.args.batch_size)
        generator = self._generator(chosen, 2 + number)
        pixels = normalize(crop([self.photos[i] for i in index[number].tolist()], generator, smallest=0.35))
        kept = torch.rand(len(pixels), GRID, generator=generator).argsort(1)[:, : self.args.kept]
        if number not in self._answers:
            self._answers[number] = ask(self.teacher, pixels, kept)
        return View(pixels, kept, self._answers[number])

    def _generator(self, *key: int) -> torch.Generator:
        seed = 0
        for part in (self.args.seed, *key):
            seed = seed * 100_003 + part
        return torch.Generator().manual_seed(seed)


@torch.no_grad()
def ask(teacher: Model, pixels: Tensor, kept: Tensor) -> Answer:
    """The teacher's logits and its states after the blocks ``REACHED``, normalized, in half precision."""
    states = tokens(teacher, shrink(pixels, SIDE), kept)
    wanted = [F.layer_norm(states[block], states[block].shape[-1:]).half() for block in REACHED]
    return logits(teacher, states[-1]), wanted


def loss_of(student: Model, view: View, args: argparse.Namespace) -> Tensor:
    """Soft targets by temperature, plus the mean squared difference of states in units of their standard deviation."""
    targets, wanted = view.answer
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
        states = tokens(student, view.pixels, view.kept)
        output = logits(student, states[-1]).float() / args.temperature
    targets = F.log_softmax(targets / args.temperature, -1)
    soft = F.kl_div(F.log_softmax(output, -1), targets, log_target=True, reduction="batchmean")
    features = [
        F.mse_loss(F.layer_norm(state.float(), state.shape[-1:]), reached.float())
        for state, reached in zip(states, wanted, strict=True)
    ]
    loss: Tensor = soft * args.temperature**2 + args.feature_weight * torch.stack(features).mean()
    return loss


@torch.inference_mode()
def accuracy(model: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Share of the photos whose top-1 class is the labeled one."""
    model.eval()
    predicted = torch.cat([model(normalize(part)).argmax(1) for part in pixels.split(64)])
    return float((predicted == labels).double().mean())


def train_epoch(
    student: Model, views: Views, optimizer: torch.optim.Optimizer, epoch: int, args: argparse.Namespace
) -> float:
    """One epoch; returns its mean loss."""
    student.train()
    total = 0.0
    order, steps = views.order(epoch), views.count
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(views, epoch, order[0])
        bar = tqdm(range(steps), desc=f"epoch {epoch + 1}/{args.epochs}", unit="batch", mininterval=10)
        for step in bar:
            view = following.result()
            if step + 1 < steps:
                following = reader.submit(views, epoch, order[step + 1])
            done = epoch * steps + step
            factor = min(1.0, (done + 1) / 60) * (0.5 + 0.5 * math.cos(math.pi * done / (args.epochs * steps)))
            for group in optimizer.param_groups:
                group["lr"] = args.lr * factor
            loss = loss_of(student, view, args)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
            bar.set_postfix(loss=f"{total / (step + 1):.3f}")
    mean: float = total / steps
    return mean


def save(student: Model, optimizer: torch.optim.Optimizer, epochs: int, path: Path) -> None:
    """A checkpoint after so many epochs, written whole or not at all."""
    temporary = path.with_suffix(".tmp")
    torch.save({"epochs": epochs, "model": student.state_dict(), "optimizer": optimizer.state_dict()}, temporary)
    os.replace(temporary, path)


def main() -> None:
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    photos, labels = read_split(args.data, "train")
    held_out = torch.cat([torch.nonzero(labels == c)[: args.validation, 0] for c in labels.unique()])
    training = torch.ones(len(labels), dtype=torch.bool)
    training[held_out] = False
    validation = center([photos[i] for i in held_out.tolist()]), labels[held_out]
    photos = [photos[i] for i in torch.nonzero(training)[:, 0].tolist()]

    teacher = load_teacher(args.teacher, int(labels.max()) + 1)
    timm.layers.set_fused_attn(False)  # the backward pass of fused attention is slow on a CPU
    student = build()
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(not name.startswith(("patch_embed", "cls_token", "pos_embed")))
    # Steps in proportion to each tensor: weights of early blocks are far smaller than those of late ones.
    optimizer = Lamb(
        [p for p in student.parameters() if p.requires_grad],
        lr=args.lr,
        weight_decay=args.weight_decay,
        always_adapt=True,
        max_grad_norm=1.0,
    )
    checkpoint, first = args.out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        student.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epochs"]
    else:
        sample = normalize(center(photos[:: len(photos) // args.start_photos]))
        start(student, teacher, sample, shrink(sample, SIDE))
        save(student, optimizer, 0, checkpoint)
        print(json.dumps({"epoch": 0, "validation": round(accuracy(student, *validation), 4)}), flush=True)
    views = Views(photos, teacher, args)
    for epoch in range(first, args.epochs):
        started = time.time()
        loss = train_epoch(student, views, optimizer, epoch, args)
        save(student, optimizer, epoch + 1, checkpoint)
        seconds = round(time.time() - started)
        valid = round(accuracy(student, *validation), 4)
        record = {"epoch": epoch + 1, "loss": round(loss, 4), "validation": valid, "seconds": seconds}
        with (args.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)

    parts = tqdm(range(0, len(photos), args.batch_size), desc="head", unit="batch", mininterval=10)
    whole = (normalize(center(photos[first : first + args.batch_size])) for first in parts)
    refit_head(student, whole, labels[training], args.head_strength)
    print(json.dumps({"head": "refit", "validation": round(accuracy(student, *validation), 4)}), flush=True)
    temporary = args.out / "weights.safetensors.tmp"
    save_file(quantize(student.state_dict()), temporary)
    os.replace(temporary, args.out / "weights.safetensors")


if __name__ == "__main__":
    main()
