"""Tables of labels and predictions: classes and their confusions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Int
from numpy import ndarray

from classlens.analysis.atlas.stored import AtlasStore
from classlens.analysis.atlas.tables import CLASSES, CONFUSIONS, interval_columns
from classlens.core.intervals import share_interval
from classlens.core.stats import ratio


def class_table(store: AtlasStore, confidence: float) -> pd.DataFrame:
    """A row for every class of the model."""
    label, prediction = store.label[store.images], store.prediction[store.images]
    images = np.bincount(label[label >= 0], minlength=store.num_classes)
    correct = np.bincount(label[(label >= 0) & (label == prediction)], minlength=store.num_classes)
    return CLASSES.frame(
        {
            "category": np.arange(store.num_classes),
            "class_name": store.class_names,
            "images": images,
            "correct": correct,
            "accuracy": ratio(correct, images),
            **interval_columns("accuracy_", share_interval(correct, images, confidence)),
            "predicted": np.bincount(prediction[prediction >= 0], minlength=store.num_classes),
        }
    )


def confusion_table(store: AtlasStore, confidence: float) -> pd.DataFrame:
    """A row for every pair of a label and another prediction, the most frequent first."""
    pairs, images = confusions(store)
    label, prediction = pairs.T
    of_label = np.bincount(store.label[store.images].clip(-1) + 1, minlength=store.num_classes + 1)[1:][label]
    names = np.array(store.class_names, dtype=object)
    return CONFUSIONS.frame(
        {
            "label": label,
            "label_name": names[label],
            "prediction": prediction,
            "prediction_name": names[prediction],
            "images": images,
            "share": ratio(images, of_label),
            **interval_columns("share_", share_interval(images, of_label, confidence)),
        }
    )


def confusions(store: AtlasStore) -> tuple[Int[ndarray, "pair 2"], Int[ndarray, " pair"]]:
    """Pairs of a label and another prediction with their numbers of images, the most frequent first."""
    label, prediction = store.label[store.images], store.prediction[store.images]
    wrong = (label >= 0) & (prediction >= 0) & (label != prediction)
    pairs, images = np.unique(np.stack([label, prediction], axis=1)[wrong], axis=0, return_counts=True)
    order = np.argsort(-images, kind="stable")  # ties stay in the order of label, then prediction
    return pairs[order], images[order]
