"""The states of the unedited model, decoded in another way than by the class embedding."""

from __future__ import annotations

from classlens import palette
from classlens.tasks.tokens.conditions.condition import Condition

TUNED_LENS = Condition(
    label="tuned lens",
    about="tokens pass a tuned lens before they are projected",
    decoder="tuned_lens",
    color=palette.ORANGE,
)
PROBE = Condition(
    label="linear probes",
    about="scores of ridge probes, one per token, site and block",
    decoder="probes",
    color=palette.VERMILLION,
)
PROBE_POOLED = Condition(
    label="one probe for all image tokens",
    about="scores of ridge probes, one per site and block",
    decoder="probes",
    color=palette.PLUM,
)
PROBE_LOGISTIC = Condition(
    label="logistic probes",
    about="scores of logistic probes, one per token, site and block",
    decoder="probes",
    color=palette.TEAL,
)
