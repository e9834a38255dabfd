"""The tables of docs/models.md: libraries, and measurements of every family.

Run ``python docs/models_table.py [--check]``. Libraries and families come from the registry of adapters; a family
without an entry in ``EXAMPLES`` is measured on its first model. Weights are random (nothing is fetched), sizes are real
except for the depth of the largest models. ``--check`` compares the page and changes nothing.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import timm
import torch

from classlens.lens.verify import verify
from classlens.models.adapter import list_models
from classlens.models.load import load_model
from classlens.models.redraw import redraw_heads
from classlens.models.registry import ADAPTERS
from classlens.models.view import ModelView
from classlens.render.terminal.verification import verification

PAGE = Path(__file__).parent / "models.md"
START, END = "<!-- families, made by docs/models_table.py -->\n", "<!-- end of families -->\n"
LIBRARIES = "<!-- libraries, made by docs/models_table.py -->\n", "<!-- end of libraries -->\n"
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
# Families described like others: the paper's models are ViTs, DeiTs and one without [CLS]; OpenCLIP's SigLIP is timm's,
# and its tokenizer would have to be fetched.
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


def random_model(name: str) -> Callable[[], ModelView]:
    return lambda: load_model(name, pretrained=False).view


def of_open_clip(name: str) -> Callable[[], ModelView]:
    return lambda: load_model(name, class_names=["cat", "dog", "fish"], pretrained=False).view


def of_transformers(name: str, **vision: Any) -> Callable[[], ModelView]:
    def make() -> ModelView:
        import transformers

        model_class = getattr(transformers, name)
        options: dict[str, Any] = {"num_labels": 1000, "num_hidden_layers": 4}
        if vision:
            options = {"num_labels": 1000, "vision_config": vision}
        return load_model(model_class(model_class.config_class(**options))).view

    return make


# For a library and a family, the models to measure, by the name in the table.
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
    # Their own input sizes are larger and would only cost time.
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
    ("torchvision", "ViT"): {"torchvision:vit_b_32": random_model("torchvision:vit_b_32")},
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
    """One row for each example."""
    first_names: dict[tuple[str, str], str] = {}
    for entry in list_models():
        first_names.setdefault((entry.library, entry.family), entry.name)
    unknown = [key for key in EXAMPLES if key not in first_names]
    if unknown:
        raise SystemExit(f"docs/models_table.py: `classlens models` does not list {unknown[0]}")
    others = [key for key in first_names if key not in EXAMPLES and key not in ELSEWHERE]
    models = EXAMPLES | {key: {first_names[key]: random_model(first_names[key])} for key in others}
    for (library, family), examples in models.items():
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
    """The power of ten above twice the error, at least 1e-6: a bound that rounding on other machines seldom crosses."""
    if error is None:
        return "–"
    return f"1e-{min(6, math.floor(-math.log10(max(2 * error, 1e-9))))}"


def markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (headings, ["---"] * len(headings), *lines))


def table(measured: list[Row]) -> str:
    return markdown(HEADINGS, map(astuple, measured))


def libraries() -> str:
    """The table of libraries, one row for each adapter."""
    return markdown(
        ("library", "models", "names", "weights"),
        (
            (adapter.label, adapter.about, ", ".join(f"`{name}`" for name in adapter.names), adapter.weights)
            for adapter in ADAPTERS.values()
        ),
    )


def differences(page: str, measured: list[Row]) -> list[str]:
    """Lines of the page that differ from the measured ones; bounds may differ by a power of ten, as rounding does."""
    shown = [line for line in page.partition(START)[2].partition(END)[0].splitlines() if line]
    expected = table(measured).splitlines()
    if len(shown) != len(expected):
        return [f"{len(shown)} lines are shown, {len(expected)} were made"]
    pairs = zip(shown, expected, strict=True)
    return [f"shown: {line}\nfound: {other}" for line, other in pairs if not alike(line, other)]


def alike(shown: str, measured: str) -> bool:
    cells = zip(shown.split(" | "), measured.split(" | "), strict=False)
    return shown.count("|") == measured.count("|") and all(old == new or near(old, new) for old, new in cells)


def near(old: str, new: str) -> bool:
    mark = "1e-"
    return old.startswith(mark) and new.startswith(mark) and abs(int(old[3:]) - int(new[3:])) <= 1


def replaced(page: str, markers: tuple[str, str], content: str) -> str:
    """The page with new content between two markers."""
    before, _, after = page.partition(markers[0])
    return f"{before}{markers[0]}\n{content}\n{markers[1]}{after.partition(markers[1])[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 where the page differs")
    check = parser.parse_args().check
    page, measured = PAGE.read_text(encoding="utf-8"), list(rows())
    with_libraries = replaced(page, LIBRARIES, libraries())
    if check:
        differ = differences(page, measured) + (["the libraries differ"] if page != with_libraries else [])
        sys.exit(
            "\n".join(["docs/models.md differs from the measurements; run make models-table", *differ]) if differ else 0
        )
    PAGE.write_text(replaced(with_libraries, (START, END), table(measured)), encoding="utf-8")


if __name__ == "__main__":
    main()
