"""Train ``builtin:cifar10``.

    python training/cifar10/train.py --data CIFAR10_FOLDER --out RUN_FOLDER

``CIFAR10_FOLDER`` holds ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``. The same command resumes a stopped run
after its last epoch; data order, augmentation and token dropping depend on ``--seed`` and the epoch alone. The run
ends by writing ``RUN_FOLDER/weights.safetensors`` (half precision, EMA weights). ``training/README.md`` explains the
recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import timm
import torch
from data import augment, normalize, pad_reflect, read_split
from safetensors.torch import save_file
from timm.layers import PatchDropout
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from classlens.models.builtin.cifar10 import build

PAD, CUTOUT = 4, 10


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with train/<class>/*.jpg and test/<class>/*.jpg"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, for checkpoint, log and weights")
    parser.add_argument("--epochs", type=int, default=45, help="number of epochs")
    parser.add_argument("--decay-epochs", type=int, default=14, help="number of last epochs with a falling rate")
    parser.add_argument("--full-epochs", type=int, default=12, help="number of last epochs with all image tokens")
    parser.add_argument("--batch-size", type=int, default=128, help="images in a batch")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.05, help="weight decay of matrices")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--validation", type=int, default=100, help="held-out training images per class")
    parser.add_argument("--threads", type=int, default=0, help="number of CPU threads; 0 for torch's default")
    return parser.parse_args()


def optimizers(model: nn.Module, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all other parameters; weight decay on matrices only."""
    block_matrices = [p for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
    muon_ids = {id(p) for p in block_matrices}
    others = [p for p in model.parameters() if id(p) not in muon_ids]
    groups = [
        {"params": [p for p in others if p.ndim >= 2 and p.shape[0] > 1], "weight_decay": weight_decay},
        {"params": [p for p in others if p.ndim < 2 or p.shape[0] == 1], "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(block_matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=lr),
    ]


def rate(step: int, *, total: int, decay: int, warmup: int = 400) -> float:
    """Factor of the learning rate: warm-up, constant, then linear decay to zero."""
    return min(1.0, (step + 1) / warmup, max(total - step, 0) / decay)


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    predicted = torch.cat([model(normalize(part)).argmax(1) for part in images.split(250)])
    return float((predicted == labels).double().mean())


def save(state: object, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def main() -> None:
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    # The backward pass of fused attention is slow on a CPU.
    timm.layers.set_fused_attn(False)
    torch.manual_seed(args.seed)

    images, labels = read_split(args.data, "train")
    held_out = torch.cat([torch.nonzero(labels == c)[: args.validation, 0] for c in labels.unique()])
    training = torch.ones(len(labels), dtype=torch.bool)
    training[held_out] = False
    validation = images[held_out], labels[held_out]
    padded, labels = pad_reflect(images[training], PAD), labels[training]
    del images

    model = build(drop_path_rate=0.05)
    ema = ModelEmaV3(model, decay=0.998)
    optims = optimizers(model, args.lr, args.weight_decay)
    steps = len(labels) // args.batch_size
    first = 0
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(optims, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["epoch"] + 1

    for epoch in range(first, args.epochs):
        full = epoch >= args.epochs - args.full_epochs
        drop: nn.Module = nn.Identity() if full else PatchDropout(0.5, num_prefix_tokens=1)
        model.register_module("patch_drop", drop)
        compiled = torch.compile(model)
        model.train()
        generator = torch.Generator().manual_seed(args.seed * 100_003 + epoch)
        torch.manual_seed(args.seed * 100_003 + epoch)
        order = torch.randperm(len(labels), generator=generator)
        start, total_loss = time.time(), 0.0
        bar = tqdm(range(steps), desc=f"epoch {epoch + 1}/{args.epochs}", unit="batch", mininterval=5)
        for step in bar:
            index = order[step * args.batch_size : (step + 1) * args.batch_size]
            factor = rate(epoch * steps + step, total=args.epochs * steps, decay=args.decay_epochs * steps)
            for optimizer in optims:
                for group in optimizer.param_groups:
                    group["lr"] = args.lr * factor
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = compiled(augment(padded[index], generator, pad=PAD, cutout=CUTOUT))
            loss = F.cross_entropy(logits.float(), labels[index], label_smoothing=0.1)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optims:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            ema.update(model, step=epoch * steps + step)
            total_loss += float(loss.detach())
            if step % 20 == 19:
                bar.set_postfix(loss=f"{total_loss / (step + 1):.3f}")
        save(
            {
                "epoch": epoch,
                "model": model.state_dict(),
                "ema": ema.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optims],
            },
            checkpoint,
        )
        record = {
            "epoch": epoch + 1,
            "loss": round(total_loss / steps, 4),
            "validation": round(accuracy(ema.module, *validation), 4),
            "all_tokens": full,
            "seconds": round(time.time() - start),
        }
        with (args.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
        tqdm.write(json.dumps(record))

    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in ema.module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    temporary = args.out / "weights.safetensors.tmp"
    save_file(weights, temporary)
    os.replace(temporary, args.out / "weights.safetensors")


if __name__ == "__main__":
    main()
