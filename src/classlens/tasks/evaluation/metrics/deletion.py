"""Deletion: how the probability of the class falls as pixels are deleted, the most important first."""

from __future__ import annotations

from classlens.tasks.evaluation.probability_curve import ProbabilityCurve


class Deletion(ProbabilityCurve):
    """The area below the probability of the class as pixels get the mean color, the most important first.

    The map is interpolated bilinearly to the pixels, which are deleted in twenty steps of equally many. Source:
    Petsiuk, Das and Saenko, *RISE: Randomized Input Sampling for Explanation of Black-box Models*, BMVC 2018,
    section 4.2, who delete a row of pixels (224) in each step.
    """

    label = "Deletion"
    about = "area below the probability of the class as pixels are deleted, most important first"
    measures = {"auc": "deletion, AUC"}
    curves = {"probability": "pixels deleted, most important first"}
    inserts = False


class BlackDeletion(Deletion):
    """As ``deletion``, with deleted pixels black."""

    label = "Deletion with black"
    about = "as deletion, with black pixels"
    measures = {"auc": "deletion with black, AUC"}
    curves = {"probability": "black pixels, most important first"}
    fill = "black"
    by_name_only = True


class BlurDeletion(Deletion):
    """As ``deletion``, with deleted pixels from the blurred image."""

    label = "Deletion with blur"
    about = "as deletion, with blurred pixels"
    measures = {"auc": "deletion with blur, AUC"}
    curves = {"probability": "blurred pixels, most important first"}
    fill = "blur"
    by_name_only = True


METRIC, BLACK, BLUR = Deletion(), BlackDeletion(), BlurDeletion()
