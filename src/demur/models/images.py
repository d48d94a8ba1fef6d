"""Pictures as a vision-language model takes them: places among the tokens, and pixels beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from demur.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import ProcessorMixin

__all__ = ["ImageReader", "freeze_vision", "seeing_modules"]

_KEEP_BYTES = 256 * 2**20  # of read pictures; past that they are read again whenever they are shown
_KNOWN = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "pixel_values"}


class ImageReader:
    """Reads pictures with a model's own processor, which knows their size and how many tokens one takes.

    Args:
        processor: a transformers processor whose pictures are `pixel_values` and nothing else, as LLaVA's are.
    """

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor: Any = processor
        self._pixels: dict[str, Tensor] = {}
        self._held = 0
        self._tokens: dict[tuple[str, tuple[tuple[int, int], ...]], list[int]] = {}

    def tokens(self, text: str, paths: Sequence[str]) -> list[int]:
        """Tokens of a rendered text, with the place of every picture widened to the tokens it takes.

        Args:
            text: holds the processor's image token once a picture.
            paths: the pictures' files.

        Raises:
            UsageError: a file cannot be read as a picture, the text has another number of places, or the processor
                makes more of pictures than demur knows to pass on.
        """
        place = self.processor.image_token
        if text.count(place) != len(paths):
            raise UsageError(
                f"the chat template wrote {text.count(place)} places {place!r} for {len(paths)} pictures: "
                "it must write one for each image part of a message"
            )
        with _opened(paths) as pictures:
            # Pictures of the same sizes take the same number of tokens.
            key = (text, tuple(p.size for p in pictures))
            if key not in self._tokens:
                start = self.processor.tokenizer.bos_token
                made = self.processor(
                    text=[text],
                    images=list(pictures) or None,
                    add_special_tokens=not (start and text.startswith(start)),
                )
                unknown = sorted(set(made) - _KNOWN)
                if unknown:
                    raise UsageError(
                        f"{type(self.processor).__name__} gives {', '.join(unknown)} with a picture; demur shows "
                        "pictures as pixel_values alone: choose a model of LLaVA's type"
                    )
                self._tokens[key] = [int(token) for token in made["input_ids"][0]]
        return list(self._tokens[key])

    def pixels(self, paths: Sequence[str]) -> Tensor:
        """(images, channels, height, width) of the pictures, as the vision tower takes them.

        Raises:
            UsageError: a file cannot be read as a picture.
        """
        import torch

        out = []
        for path in paths:
            found = self._pixels.get(path)
            if found is None:
                with _opened([path]) as pictures:
                    made = self.processor.image_processor(images=list(pictures), return_tensors="pt")
                found = made["pixel_values"]
                if self._held < _KEEP_BYTES:
                    self._pixels[path] = found
                    self._held += found.numel() * found.element_size()
            out.append(found)
        return torch.cat(out)


@contextlib.contextmanager
def _opened(paths: Sequence[str]) -> Iterator[list[Any]]:
    from PIL import Image, UnidentifiedImageError

    with contextlib.ExitStack() as stack:
        pictures = []
        for path in paths:
            try:
                pictures.append(stack.enter_context(Image.open(path)))
            except (OSError, UnidentifiedImageError) as error:
                raise UsageError(f"cannot read {path} as a picture: {error}") from error
        yield pictures


def _vision_tower(model: Any) -> Any | None:
    tower = model.get_encoder(modality="image")
    return None if tower in (model, model.base_model) else tower


def freeze_vision(model: Any) -> None:
    """Leave the part of a model that looks at pictures as it is, if it has one."""
    tower = _vision_tower(model)
    if tower is not None:
        tower.requires_grad_(False)


def seeing_modules(model: Any, projector: bool) -> list[str]:
    """Names of the linear modules that look at pictures, which adapters leave alone.

    Args:
        model: a transformers model.
        projector: count also what leads from the tower to the language model.
    """
    import torch

    tower = _vision_tower(model)
    if tower is None:
        return []
    known = set((model.get_decoder() if projector else tower).modules()) | {model.get_output_embeddings()}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and (module in known) != projector and name != "lm_head"
    ]
