"""Edits of one photo's pass as plain values: read from JSON or text, run beside the original, written as code."""

from __future__ import annotations

from classlens.render.edit_record.plan import EditPlan, PlannedEdit, plan_of, read_plan
from classlens.render.edit_record.record import edit_record

__all__ = ["EditPlan", "PlannedEdit", "edit_record", "plan_of", "read_plan"]
