"""Pixel masking with a blurred image."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from classlens.models.corruptions import blurred
from classlens.tasks.evaluation.image_batch import ImageBatch
from classlens.tasks.evaluation.metrics.masking import Masking


class BlurMasking(Masking):
    """As ``masking``, with masked pixels from the blurred image, which keeps colors and large shapes.

    The blur is Gaussian, with a standard deviation of a 32nd of the longer side, cut off at three deviations. Blurred
    pixels are the baseline of Fong and Vedaldi, *Interpretable Explanations of Black Boxes by Meaningful Perturbation*,
    ICCV 2017.
    """

    label = "Masking with blur"
    about = "as masking, with blurred pixels"
    measures = {"negative_auc": "blur, least first, AUC", "positive_auc": "blur, most first, AUC"}
    curves = {
        "negative": "blurred pixels, least important first",
        "positive": "blurred pixels, most important first",
    }

    def paint(self, batch: ImageBatch) -> Float[Tensor, "image channel height width"]:
        return blurred(batch.pixels)


METRIC = BlurMasking()
