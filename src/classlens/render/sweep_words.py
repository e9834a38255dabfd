"""Parts, metrics and effects of a sweep in words, for the page, the figures and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from classlens.core.sweep_metrics import SWEEP_METRICS

Record = Mapping[str, Any]

# By `over`, or the site of tokens: a part in its block. Numbers are block and part, as in "head 7.3".
_NAMES: Mapping[str, str] = {
    "sublayers": "{part} of block {block}",
    "heads": "head {block}.{part}",
    "units": "unit {block}.{part}",
    "resid_pre": "{part} before block {block}",
    "attn_out": "{part} in what attention of block {block} adds",
    "mlp_out": "{part} in what the MLP of block {block} adds",
    "resid_post": "{part} after block {block}",
}
_SUBLAYERS = {"attn": "attention", "mlp": "the MLP"}


def name_template(record: Record) -> str:
    """Name of a part in its block, with ``{part}`` and ``{block}`` to be filled in."""
    return _NAMES[record["site"] or record["over"]]


def part_labels(record: Record, image: Record) -> list[str]:
    """Labels of the swept parts of a block: numbers, names of sublayers, or places of tokens."""
    labels: dict[str, Callable[[Any], str]] = {
        "sublayers": lambda name: _SUBLAYERS[name],
        "tokens": partial(_token, record["model"]["prefix"], image["grid"][1]),
    }
    return [labels.get(record["over"], str)(part) for part in image["parts"]]


def _token(prefix: Sequence[str], columns: int, position: int) -> str:
    if position < len(prefix):
        return f"[{prefix[position].upper()}]"
    row, column = divmod(position - len(prefix), columns)
    return f"row {row}, column {column}"


def estimate_words(record: Record) -> str:
    """The method of estimated effects; empty where parts were patched."""
    if not record["approximate"]:
        return ""
    return f"estimate (attribution patching, {record['steps']} {'step' if record['steps'] == 1 else 'steps'})"


def metric_name(record: Record) -> str:
    """The metric without its classes, such as ``log odds``."""
    return str(record["metric"]).replace("_", " ")


def metric_words(record: Record, image: Record) -> str:
    """The metric with the classes that it is about."""
    target = image["target"]["name"]
    if SWEEP_METRICS[record["metric"]].rival:
        return f"logit of {target} minus that of {image['against']['name']}"
    return f"{metric_name(record)} of {target}"


def effect_words(record: Record, name: str, effect: float) -> str:
    """A sentence on one effect, which begins with the name of its part."""
    about = "about " if record["approximate"] else ""
    size, of = f"{about}{percent(abs(effect))}", f"the difference in {metric_name(record)}"
    name = name[0].upper() + name[1:]
    if record["direction"] == "denoise":
        return f"{name} restores {size} of {of}" if effect >= 0 else f"{name} widens {of} by {size}"
    return f"{name} takes away {size} of {of}" if effect >= 0 else f"{name} adds {size} to {of}"


def direction_words(record: Record) -> str:
    """One sentence on what runs, or would run where effects are estimates."""
    part = {"sublayers": "sublayer", "heads": "head", "tokens": "token", "units": "hidden unit"}[record["over"]]
    base, source = ("corrupt", "clean") if record["direction"] == "denoise" else ("clean", "corrupt")
    if record["approximate"]:
        return f"Estimates for the {base} image with one {part} at a time from the {source} one"
    return f"The {base} image runs with one {part} at a time from the {source} one"


def agreement_words(record: Record, image: Record) -> str:
    """The sentence on estimates beside the exact sweep of the same parts."""
    correlation = image["agreement"]["rank_correlation"]
    if correlation is None:
        return "The rank correlation with the exact sweep is not defined, as all values of one of them are equal"
    parts = f"{len(record['blocks']) * len(image['parts'])} {record['over']}"
    return f"Agreement with the exact sweep: Spearman's rank correlation {number(correlation)} over {parts}"


def equal_words(record: Record, image: Record) -> str:
    """The sentence where both images have the same metric."""
    return (
        f"Clean and corrupt image have the same {metric_words(record, image)}, {number(image['clean'])}: there is no "
        "difference to share out, so effects are not defined"
    )


def prediction_words(guess: Record) -> str:
    """A class with its probability; an output that has none with its value."""
    if guess["probability"] is None:
        return f"{guess['name']} {number(guess['logit'])}"
    return f"{guess['name']} {percent(guess['probability'])}"


def percent(share: float) -> str:
    """A share as whole percent, or with a decimal below 10 %."""
    text = f"{100 * share:.0f}" if abs(share) >= 0.0995 else f"{100 * share:.1f}"
    return f"{text.removeprefix('-') if float(text) == 0 else text}%".replace("-", "−")


def number(value: float) -> str:
    """Three significant digits, and the sign of typography."""
    return f"{value:.3g}".replace("-", "−")


def equal(image: Record) -> bool:
    """Whether both images have the same metric, so that no effect is defined."""
    return bool(image["clean"] == image["corrupt"])
