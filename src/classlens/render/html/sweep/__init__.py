"""The page of causal sweeps: one HTML file with the pair, heatmaps, maps and the largest effects."""

from __future__ import annotations

from classlens.render.html.sweep.page import write_sweep_page

__all__ = ["write_sweep_page"]
