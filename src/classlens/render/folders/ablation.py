"""An ablation as a folder: tables, figures and a summary."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from classlens.render.folders.analysis import write_csv
from classlens.render.folders.result_folder import ABLATION, replacing
from classlens.render.markdown.ablation import ablation_summary
from classlens.tasks.ablation.result import AblateResult

TABLES = ("effects", "agreement", "held_out", "pairs", "pair_tests")


def write_ablation(result: AblateResult, out: Path, *, version: str) -> None:
    """Write a table each as ``.csv``, three figures, ``summary.md`` and ``ablation.json``, all at once or nothing.

    ``write_ablation(classlens.ablate(model, data, "out", to="zero"), Path("out/results"), version="0.1.0")``
    """
    from classlens.render.figures import ablation
    from classlens.render.figures.style import save

    with replacing(out, ABLATION) as folder:
        for name in TABLES:
            write_csv(getattr(result, name), folder / f"{name}.csv")
        for name in ("effects", "agreement", "held_out"):
            for ending in ("png", "svg"):
                save(getattr(ablation, name)(result), folder / f"{name}.{ending}")
        (folder / "summary.md").write_text(ablation_summary(result), encoding="utf-8")
        record = {
            "classlens": version,
            "store": result.run.store,
            "settings": dict(result.settings),
            "statistics": asdict(result.statistics),
        }
        (folder / "ablation.json").write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")
