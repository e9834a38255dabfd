"""The table of docs/models.md, measured on one model of every family: ``python docs/models_table.py [--check]``.

Families come from ``classlens models``; a family without an example is an error. Weights are random (nothing is
fetched), sizes are real but for the depth of the largest. ``--check`` compares and changes nothing.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import timm
import torch

from classlens.lens.verify import verify
from classlens.models.adapter import list_models
from classlens.models.load import load_model
from classlens.models.redraw import redraw_heads
from classlens.models.view import ModelView
from classlens.render.terminal.verification import verification

PAGE = Path(__file__).parent / "models.md"
START, END = "<!-- made by docs/models_table.py -->\n", "<!-- end -->\n"
HEADINGS = (
    "library",
    "family",
    "example",
    "pooling",
    "prefix tokens",
    "logits",
    "attribution",
    "without",
)
# Families that differ in nothing that is read: the paper's models are ViTs, DeiTs and one without [CLS]; OpenCLIP's
# SigLIP is timm's, and its tokenizer would have to be fetched.
ELSEWHERE = {("timm", "paper"), ("classlens", "ViT"), ("open_clip", "SigLIP")}


@dataclass(frozen=True)
class Row:
    library: str
    family: str
    example: str
    pooling: str
    prefix: str
    law2: str
    law3: str
    missing: str


def of_timm(name: str, **options: Any) -> Callable[[], ModelView]:
    options.setdefault("num_classes", 1000)
    return lambda: load_model(timm.create_model(name, **options)).view


def of_torchvision(name: str) -> Callable[[], ModelView]:
    return lambda: load_model(name, pretrained=False).view


def of_open_clip(name: str) -> Callable[[], ModelView]:
    return lambda: load_model(name, class_names=["cat", "dog", "fish"], pretrained=False).view


def of_transformers(name: str, **vision: Any) -> Callable[[], ModelView]:
    def made() -> ModelView:
        import transformers

        kind = getattr(transformers, name)
        options: dict[str, Any] = {"num_labels": 1000, "num_hidden_layers": 4}
        if vision:
            options = {"num_labels": 1000, "vision_config": vision}
        return load_model(kind(kind.config_class(**options))).view

    return made


# Library, family, and the models that stand for it, by the name that they are shown with.
EXAMPLES: dict[tuple[str, str], dict[str, Callable[[], ModelView]]] = {
    ("timm", "ViT"): {
        "vit_tiny_patch16_224": of_timm("vit_tiny_patch16_224"),
        "vit_base_patch16_rpn_224": of_timm("vit_base_patch16_rpn_224"),
        "vit_small_patch16_18x2_224": of_timm("vit_small_patch16_18x2_224"),
        "vit_base_patch16_xp_224": of_timm("vit_base_patch16_xp_224"),
    },
    **{
        ("timm", family): {name: of_timm(name)}
        for family, name in {
            "ViT hybrid": "vit_tiny_r_s16_p8_224",
            "ViT relative position": "vit_relpos_small_patch16_224",
            "ViT rotary position": "vit_small_patch16_rope_224",
            "FlexiViT": "flexivit_small",
            "DeiT": "deit_tiny_patch16_224",
            "DeiT distilled": "deit_tiny_distilled_patch16_224",
            "DeiT-III": "deit3_small_patch16_224",
            "BEiT": "beit_base_patch16_224",
            "BEiTv2": "beitv2_base_patch16_224",
            "BEiT-3": "beit3_base_patch16_224",
            "EVA-02": "eva02_tiny_patch14_224",
            "DINOv3": "vit_small_patch16_dinov3",
            "CLIP": "vit_base_patch32_clip_224",
            "SigLIP": "vit_base_patch16_siglip_224",
            "Perception Encoder": "vit_pe_core_tiny_patch16_384",
        }.items()
    },
    # Their own input sizes are larger: pixels cost time and teach nothing here.
    ("timm", "DINOv2"): {"vit_small_patch14_reg4_dinov2": of_timm("vit_small_patch14_reg4_dinov2", img_size=224)},
    ("timm", "LingBot"): {"vit_small_patch16_lingbot": of_timm("vit_small_patch16_lingbot", img_size=224)},
    ("timm", "RADIO"): {"vit_base_patch16_radio_v3": of_timm("vit_base_patch16_radio_v3", img_size=224)},
    ("timm", "EVA"): {"eva_giant_patch14_224": of_timm("eva_giant_patch14_224", depth=2)},
    ("timm", "AIMv2"): {"aimv2_large_patch14_224": of_timm("aimv2_large_patch14_224", depth=2)},
    ("timm", "InternViT"): {"vit_intern300m_patch14_448": of_timm("vit_intern300m_patch14_448", img_size=224, depth=2)},
    ("timm", "TIPS"): {"vit_base_patch14_reg1_tipsv2": of_timm("vit_base_patch14_reg1_tipsv2", img_size=224)},
    ("timm", "Sapiens2"): {
        "vit_base_patch16_sapiens2": of_timm("vit_base_patch16_sapiens2", img_size=224),
    },
    ("torchvision", "ViT"): {"torchvision:vit_b_32": of_torchvision("torchvision:vit_b_32")},
    ("open_clip", "CLIP"): {"open_clip:ViT-B-32": of_open_clip("open_clip:ViT-B-32")},
    ("transformers", "ViT"): {
        "ViTForImageClassification": of_transformers("ViTForImageClassification"),
        "ViTMSNForImageClassification": of_transformers("ViTMSNForImageClassification"),
    },
    ("transformers", "DeiT"): {"DeiTForImageClassification": of_transformers("DeiTForImageClassification")},
    ("transformers", "DeiT distilled"): {
        "DeiTForImageClassificationWithTeacher": of_transformers("DeiTForImageClassificationWithTeacher")
    },
    ("transformers", "BEiT"): {"BeitForImageClassification": of_transformers("BeitForImageClassification")},
    ("transformers", "DINOv2"): {
        "Dinov2ForImageClassification": of_transformers("Dinov2ForImageClassification"),
        "Dinov2WithRegistersForImageClassification": of_transformers("Dinov2WithRegistersForImageClassification"),
    },
    ("transformers", "SigLIP"): {
        "SiglipForImageClassification": of_transformers("SiglipForImageClassification", num_hidden_layers=4)
    },
}


def rows() -> Iterator[Row]:
    """One row an example, measured now."""
    families = dict.fromkeys((one.library, one.family) for one in list_models())
    without = [key for key in families if key not in EXAMPLES and key not in ELSEWHERE]
    if without or [key for key in EXAMPLES if key not in families]:
        raise SystemExit(
            f"docs/models_table.py: examples and `classlens models` differ, first at {without or EXAMPLES}"
        )
    for (library, family), examples in EXAMPLES.items():
        for name, make in examples.items():
            torch.manual_seed(0)
            view = make()
            redraw_heads(view)
            yield row(library, family, name, view)


def row(library: str, family: str, example: str, view: ModelView) -> Row:
    record = verification(view, verify(view))
    if not record["holds"]:
        raise SystemExit(f"docs/models_table.py: {example} breaks a law: {record['laws']}")
    errors = {law["name"]: law["error"] for law in record["laws"]}
    missing = []
    if errors["attribution"] is None:
        missing.append("`attribution`")
    if not view.has_mid:
        missing.append("`resid_mid`")
    registers = sum(name.startswith("reg") for name in record["prefix"])
    prefix = [name for name in record["prefix"] if not name.startswith("reg")]
    return Row(
        library,
        family,
        f"`{example}`",
        record["pooling"],
        ", ".join([*prefix, *([f"{registers} reg"] if registers else [])]) or "none",
        decade(errors["class space"]),
        decade(errors["attribution"]),
        ", ".join(missing) or "–",
    )


def decade(error: float | None) -> str:
    """A bound that another machine's rounding seldom crosses: the power of ten above twice the error, at least 1e-6."""
    if error is None:
        return "–"
    return f"1e-{min(6, math.floor(-math.log10(max(2 * error, 1e-9))))}"


def table(found: list[Row]) -> str:
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(astuple(one) for one in found)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def differences(page: str, found: list[Row]) -> list[str]:
    """Lines of the page that are not what is measured; bounds may be a power of ten off: rounding is a machine's."""
    shown = [line for line in page.partition(START)[2].partition(END)[0].splitlines() if line]
    made = table(found).splitlines()
    if len(shown) != len(made):
        return [f"{len(shown)} lines are shown, {len(made)} were made"]
    return [f"shown: {one}\nfound: {other}" for one, other in zip(shown, made, strict=True) if not alike(one, other)]


def alike(shown: str, found: str) -> bool:
    pairs = zip(shown.split(" | "), found.split(" | "), strict=False)
    return shown.count("|") == found.count("|") and all(one == other or bounds(one, other) for one, other in pairs)


def bounds(one: str, other: str) -> bool:
    mark = "1e-"
    return one.startswith(mark) and other.startswith(mark) and abs(int(one[3:]) - int(other[3:])) <= 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 where the page differs")
    page, found = PAGE.read_text(encoding="utf-8"), list(rows())
    if parser.parse_args().check:
        differ = differences(page, found)
        sys.exit("\n".join(["docs/models.md is not what was measured; make models-table", *differ]) if differ else 0)
    before, _, rest = page.partition(START)
    PAGE.write_text(before + START + "\n" + table(found) + "\n" + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
