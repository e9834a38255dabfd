"""Insertion: how the probability of the class rises as pixels appear, the most important first."""

from __future__ import annotations

from classlens.tasks.evaluation.probability_curve import ProbabilityCurve


class Insertion(ProbabilityCurve):
    """The area below the probability of the class as pixels are inserted into the mean color, the most important first.

    The map is interpolated bilinearly to the pixels, which appear in twenty steps of equally many. Source: Petsiuk, Das
    and Saenko, *RISE: Randomized Input Sampling for Explanation of Black-box Models*, BMVC 2018, section 4.2, who
    insert into the blurred image, as ``insertion_blur`` does, a row of pixels (224) in each step.
    """

    label = "Insertion"
    about = "area below the probability of the class as pixels appear, most important first"
    measures = {"auc": "insertion, AUC"}
    curves = {"probability": "pixels inserted, most important first"}
    inserts = True


class BlackInsertion(Insertion):
    """As ``insertion``, into black."""

    label = "Insertion into black"
    about = "as insertion, into black"
    measures = {"auc": "insertion into black, AUC"}
    curves = {"probability": "pixels inserted into black, most important first"}
    fill = "black"
    by_name_only = True


class BlurInsertion(Insertion):
    """As ``insertion``, into the blurred image."""

    label = "Insertion into blur"
    about = "as insertion, into the blurred image"
    measures = {"auc": "insertion into blur, AUC"}
    curves = {"probability": "pixels inserted into blur, most important first"}
    fill = "blur"
    by_name_only = True


METRIC, BLACK, BLUR = Insertion(), BlackInsertion(), BlurInsertion()
