"""The text side of an OpenCLIP model: a zero-shot classifier and the embeddings of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from classlens.errors import ClasslensError

Tokenizer = Callable[..., Tensor]


class ZeroShotClassifier(nn.Module):
    """A CLIP model with one text embedding for each class; ``classifier`` makes it.

    ``forward(pixels)`` returns ``exp(logit_scale) · normalize(encode_image(pixels)) · textᵀ``, with ``+ logit_bias``
    where the model has one (SigLIP): ``[image, category]``, like the model's own ``get_logits``.
    """

    text: Tensor

    def __init__(
        self, model: nn.Module, text: Tensor, class_names: Sequence[str], tokenizer: Tokenizer | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.class_names = tuple(class_names)
        self.tokenizer = tokenizer
        self.register_buffer("text", text)
        self.training = model.training

    def forward(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        # A model in mixed precision keeps some parameters in float32; its first layer decides.
        first = next((parameter for parameter in model.visual.parameters() if parameter.ndim == 4), pixels)
        features = model.encode_image(pixels.to(first.dtype), normalize=True)
        logits: Tensor = model.logit_scale.exp() * features @ self.text.T
        bias = getattr(model, "logit_bias", None)
        return logits if bias is None else logits + bias


def text_embeddings(module: ZeroShotClassifier, prompts: Sequence[str]) -> Tensor:
    """Embeddings of prompts by the model's own text tower, of unit length: ``[prompt, width]``.

    Raises ClasslensError for a classifier whose tokenizer is not known.
    """
    if module.tokenizer is None:
        raise ClasslensError(
            "the model has no tokenizer for prompts: make it with classlens.models.open_clip.classifier, or load it by "
            "its name"
        )
    return embedded(module.model, module.tokenizer, prompts, [str])


def embedded(
    model: nn.Module, tokenizer: Tokenizer, names: Sequence[str], templates: Sequence[Callable[[str], str]]
) -> Tensor:
    """The mean embedding of each name over the templates, of unit length, in evaluation mode."""
    # Imported this late because the library may be missing; a tower of another library is refused before.
    from open_clip import build_zero_shot_classifier

    flags = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        text = build_zero_shot_classifier(model, tokenizer, names, templates, device=next(model.parameters()).device)
    finally:
        for part, training in flags:
            part.training = training
    embeddings: Tensor = text.T.contiguous()
    return embeddings
