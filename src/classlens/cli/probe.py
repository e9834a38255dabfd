"""`classlens probe`: linear probes of every token, beside the class projection."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from classlens.cli import options
from classlens.cli.app import app, reporting
from classlens.cli.options import ModelOptions, RunOptions, expand_options, split_names
from classlens.errors import ClasslensError
from classlens.text import say


@app.command()
@reporting
@expand_options
def probe(
    model: options.Model,
    train: Annotated[str, typer.Option(help="Training images, as --data of measure.")],
    test: Annotated[str, typer.Option(help="Test images, as --data of measure.")],
    out: Annotated[Path, typer.Option(help="Folder for the probes and the store.")],
    weights: ModelOptions,
    run: RunOptions,
    sites: Annotated[
        str, typer.Option(help="Sites between commas, or all: embed, attn_out, resid_mid, mlp_out, resid_post.")
    ] = "attn_out,mlp_out,resid_post",
    pooled: Annotated[bool, typer.Option("--pooled", help="One probe for all image tokens of a block.")] = False,
    logistic: Annotated[bool, typer.Option("--logistic", help="scikit-learn's logistic regression.")] = False,
    alpha: Annotated[str, typer.Option(help="Ridge penalty, or loo for leave-one-out.")] = "1",
    tokens: Annotated[str | None, typer.Option(help="Tokens with probes: all, prefix, image or cls.")] = None,
    ram: options.Ram = "8GB",
    train_split: Annotated[str | None, typer.Option(help="Split of --train, such as train.")] = None,
    train_per_class: Annotated[
        int | None, typer.Option(help="Maximum number of training images per class; 10 in the paper.")
    ] = None,
    train_limit: Annotated[
        int | None, typer.Option(help="Maximum number of training images, spread evenly over classes.")
    ] = None,
    test_split: Annotated[str | None, typer.Option(help="Split of --test, such as validation.")] = None,
    test_per_class: Annotated[int | None, typer.Option(help="Maximum number of test images per class.")] = None,
    test_limit: Annotated[
        int | None, typer.Option(help="Maximum number of test images, spread evenly over classes.")
    ] = None,
    test_masks: options.Masks = None,
    mask_values: options.MaskValues = None,
    label_column: options.LabelColumn = None,
    shuffle: options.Shuffle = False,
    seed: Annotated[int, typer.Option(help="Random seed of samples.")] = 0,
    tuned_lens: options.TunedLensFile = None,
) -> None:
    """Train linear probes of every token, site and block, and measure their scores; run again to resume after a stop.

    Probes show what could be decoded from each token, beside the class embedding. Run again with --pooled or
    --logistic to add other probes; analyze and evaluate --ranks take the store.
    """
    from classlens.render.terminal.probes import accuracy_table
    from classlens.render.terminal.progress import watched
    from classlens.tasks.probes.probe import probe as train_probes
    from classlens.tasks.probes.training import Kind

    if pooled and logistic:
        raise ClasslensError("--pooled and --logistic were both given: give one of them")
    kind: Kind = "pooled" if pooled else "logistic" if logistic else "ridge"

    def kept() -> bool:
        return any(path.suffix in (".checkpoint", ".safetensors") for path in out.rglob("*"))

    with watched(sys.stdout if run.log_json else None, str(out), kept) as (report, finished):
        result = train_probes(
            model,
            train,
            test,
            out,
            sites=split_names(sites),
            kind=kind,
            alpha=_number(alpha),
            tokens=tokens,  # type: ignore[arg-type]
            ram=ram,
            tuned_lens=tuned_lens,
            train_split=train_split,
            train_per_class=train_per_class,
            train_limit=train_limit,
            test_split=test_split,
            test_per_class=test_per_class,
            test_limit=test_limit,
            test_masks=test_masks,
            mask_values=mask_values,
            label_column=label_column,
            shuffle=shuffle,
            seed=seed,
            report=report,
            **run.arguments(),
            **weights.load_options(model),
        )
        finished(result.run)
    if run.log_json:
        return
    say(f"Trained {result.trained} probes in {result.seconds:.1f} s, {result.passes} passes over the training images.")
    Console(emoji=False, highlight=False, soft_wrap=True).print(accuracy_table(result.run.store))


def _number(text: str) -> Any:
    """A number; any other text is left to the check that explains it."""
    try:
        return float(text)
    except ValueError:
        return text
