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
from pathlib import Path

import timm
import torch
from architecture import build
from photos import Photos, center, crop, normalize, read_split, shrink
from safetensors.torch import save_file
from student import REACHED, Model, logits, start, tokens
from teacher import SIDE, load_teacher
from timm.optim import Lamb
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from classlens.models.builtin.row_quantization import quantize


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, test/ and classes.txt")
    parser.add_argument("--teacher", type=Path, required=True, help="weights of timm's vit_small_patch14_dinov2")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, for checkpoint, log and weights")
    parser.add_argument("--epochs", type=int, default=8, help="number of epochs")
    parser.add_argument("--full-epochs", type=int, default=0, help="number of last epochs with all image tokens")
    parser.add_argument("--kept", type=int, default=64, help="image tokens kept in the other epochs")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a batch")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate, as a share of each tensor's norm")
    parser.add_argument("--weight-decay", type=float, default=0.01, help="weight decay")
    parser.add_argument("--temperature", type=float, default=2.0, help="temperature of the soft targets")
    parser.add_argument("--feature-weight", type=float, default=1.0, help="weight of the loss of token states")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--start-photos", type=int, default=192, help="photos of the least squares of the start")
    parser.add_argument("--validation", type=int, default=20, help="held-out training photos of each class")
    parser.add_argument("--threads", type=int, default=0, help="number of CPU threads; 0 for torch's default")
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast, for CPUs that compute in it")
    return parser.parse_args()


def loss_of(student: Model, teacher: Model, pixels: Tensor, kept: Tensor | None, args: argparse.Namespace) -> Tensor:
    """Soft targets by temperature, plus the mean squared difference of states in units of their standard deviation."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
        with torch.no_grad():
            wanted = tokens(teacher, shrink(pixels, SIDE), kept)
            targets = logits(teacher, wanted[-1]).float() / args.temperature
        states = tokens(student, pixels, kept)
        output = logits(student, states[-1]).float() / args.temperature
    soft = F.kl_div(F.log_softmax(output, -1), F.log_softmax(targets, -1), log_target=True, reduction="batchmean")
    width = states[0].shape[-1:]
    features = [
        F.mse_loss(F.layer_norm(state.float(), width), F.layer_norm(wanted[reached].float(), width))
        for state, reached in zip(states, REACHED, strict=True)
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
    student: Model,
    teacher: Model,
    optimizer: torch.optim.Optimizer,
    photos: Photos,
    epoch: int,
    args: argparse.Namespace,
) -> float:
    """One epoch; returns its mean loss."""
    generator = torch.Generator().manual_seed(args.seed * 100_003 + epoch)
    steps = len(photos) // args.batch_size
    order = torch.randperm(len(photos), generator=generator).split(args.batch_size)[:steps]
    crops = torch.Generator().manual_seed(args.seed * 100_003 + epoch)

    def read(index: Tensor) -> Tensor:
        return crop([photos[i] for i in index.tolist()], crops, smallest=0.35)

    student.train()
    total = 0.0
    count = student.patch_embed.num_patches
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(read, order[0])
        bar = tqdm(range(steps), desc=f"epoch {epoch + 1}/{args.epochs}", unit="batch", mininterval=10)
        for step in bar:
            pixels = normalize(following.result())
            if step + 1 < steps:
                following = reader.submit(read, order[step + 1])
            drawn = torch.rand(len(pixels), count, generator=generator)
            kept = None if epoch >= args.epochs - args.full_epochs else drawn.argsort(1)[:, : args.kept]
            done = epoch * steps + step
            factor = min(1.0, (done + 1) / 60) * (0.5 + 0.5 * math.cos(math.pi * done / (args.epochs * steps)))
            for group in optimizer.param_groups:
                group["lr"] = args.lr * factor
            loss = loss_of(student, teacher, pixels, kept, args)
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
    for epoch in range(first, args.epochs):
        started = time.time()
        loss = train_epoch(student, teacher, optimizer, photos, epoch, args)
        save(student, optimizer, epoch + 1, checkpoint)
        seconds = round(time.time() - started)
        valid = round(accuracy(student, *validation), 4)
        record = {"epoch": epoch + 1, "loss": round(loss, 4), "validation": valid, "seconds": seconds}
        with (args.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)

    temporary = args.out / "weights.safetensors.tmp"
    save_file(quantize(student.state_dict()), temporary)
    os.replace(temporary, args.out / "weights.safetensors")


if __name__ == "__main__":
    main()
