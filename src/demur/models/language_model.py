"""A causal language model with its tokenizer and the way prompts are shown to it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from demur.errors import UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from demur.models.images import ImageReader

__all__ = ["LanguageModel", "hash_weights", "load_model", "quiet_transformers", "resolve_model"]

Template = Literal["chat", "plain"]


@dataclass
class LanguageModel:
    """A model ready to be scored, trained or asked.

    Attributes:
        model: a transformers causal or vision-language LM (or a peft wrapper of one), in eval mode when loaded.
        tokenizer: its tokenizer; the pad token is the end-of-text token where it has none.
        template: "chat" (the tokenizer's chat template) or "plain" (Question/Answer tags).
        name: what the user called it.
        path: its folder, where it has one.
        images: reads pictures for it; None where it cannot see any.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: str = "chat"
    name: str = "model"
    path: Path | None = field(default=None, compare=False)
    images: ImageReader | None = field(default=None, compare=False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.model.device

    @property
    def context(self) -> int | None:
        """The longest sequence the model can read, in tokens; None where its configuration does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def pad_id(self) -> int:
        """Token id used for padding."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    def weights_hash(self) -> str:
        """SHA-256 (hex) over names, types, shapes and bytes of all weights, as they are now."""
        return hash_weights(self.model.state_dict())

    def save(self, folder: str | Path) -> None:
        """Write model (safetensors) and tokenizer, or the whole processor, in Hugging Face format."""
        with quiet_transformers():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            if self.images is not None:
                self.images.processor.save_pretrained(folder)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' own progress bars, which flash past for every file."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def hash_weights(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) of named tensors, independent of their order and device."""
    import hashlib

    import torch

    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


_MODEL_FILES = ("config.json", "adapter_config.json")


def resolve_model(name: str) -> str:
    """A path or hub name from what the user typed; `lab:almanac` asks the model source `lab` for its folder.

    Raises:
        UsageError: no model source has that name, or a path that does not exist was named.
    """
    if not name:
        raise UsageError("no model is named: give a folder, a hub name (owner/name) or a lab model (lab:almanac)")
    scheme, colon, rest = name.partition(":")
    sources = {e.name: e for e in entry_points(group="demur.model_sources")}
    if colon and scheme in sources:
        return str(sources[scheme].load()(rest))
    if colon and "/" not in scheme:
        raise UsageError(f"unknown model source {scheme!r} in {name!r}: {nearest(scheme, sources)}")
    path = Path(name)
    if any((path / "model" / file).is_file() for file in _MODEL_FILES):  # a run folder
        return str(path / "model")
    if path.is_dir():
        if not any((path / file).is_file() for file in _MODEL_FILES):
            raise UsageError(f"{name} is not a model folder: it has no config.json")
        return name
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UsageError(f"no model at {name}: give a folder, a hub name (owner/name) or a lab model (lab:almanac)")
    return name


def load_model(
    name: str | Path,
    *,
    template: Template | Literal["auto"] = "auto",
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a causal or vision-language model with safe defaults: safetensors only, no code from the hub.

    Args:
        name: a folder (Hugging Face format, a LoRA adapter, or a run folder), a hub name, or a lab model.
        template: how prompts are shown; "auto" takes the tokenizer's chat template and refuses a model without one.
        device: "auto" takes a GPU where there is one.
        dtype: "auto" keeps the checkpoint's, else for instance "float32" or "bfloat16".
        trust_remote_code: run model code that comes with the checkpoint.

    Raises:
        UsageError: the model cannot be found or loaded, is no causal LM, or has no chat template.
    """
    path = resolve_model(str(name))
    target = _usable_device(device)
    _check_dtype(dtype)
    with quiet_transformers():
        model, tokenizer, images = _load(path, dtype, trust_remote_code)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if template == "auto":
        if not tokenizer.chat_template:
            raise UsageError(
                f"{name} has no chat template: pass --template plain to show prompts as Question:/Answer: text"
            )
        template = "chat"
    elif template == "chat" and not tokenizer.chat_template:
        raise UsageError(f"{name} has no chat template: use --template plain")
    model.to(target).eval()
    folder = Path(path)
    return LanguageModel(model, tokenizer, template, str(name), folder if folder.is_dir() else None, images)


def _usable_device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).partition("\n")[0]
        raise UsageError(f"device {device!r} cannot be used here: {first}") from error
    return device


def _check_dtype(dtype: str) -> None:
    import torch

    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UsageError(f"unknown dtype {dtype!r}: use auto, float32, bfloat16 or float16")


def _load(path: str, dtype: str, trust_remote_code: bool) -> tuple[Any, Any, ImageReader | None]:
    import transformers

    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    try:
        adapter = Path(path) / "adapter_config.json"
        base = _base_of(adapter) if adapter.is_file() else path
        if _sees(base, options):
            return _load_seeing(path, base, dtype, options)
        if adapter.is_file():
            from peft import AutoPeftModelForCausalLM

            model = AutoPeftModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True, **options)
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, use_safetensors=True, **options
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().partition("\n")[0]
        what = path if Path(path).exists() else f"{path}, which is no folder here,"
        raise UsageError(f"cannot load {what} as a causal language model: {first}") from error
    return model, tokenizer, None


def _base_of(adapter: Path) -> str:
    """The model that an adapter stands on."""
    return str(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"])


def _sees(path: str, options: dict[str, Any]) -> bool:
    """Whether a checkpoint takes pictures beside text and says how to read them."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as SEEING
    from transformers.utils import cached_file

    config = transformers.AutoConfig.from_pretrained(path, **options)
    names = ("processor_config.json", "preprocessor_config.json")
    absent = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    return type(config) in SEEING and any(cached_file(path, name, **absent) for name in names)


def _load_seeing(path: str, base: str, dtype: str, options: dict[str, Any]) -> tuple[Any, Any, ImageReader]:
    import transformers

    from demur.models.images import ImageReader

    model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
        base, dtype=dtype, use_safetensors=True, **options
    )
    if base != path:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, path)
    processor = transformers.AutoProcessor.from_pretrained(path, **options)
    tokenizer = processor.tokenizer
    tokenizer.chat_template = processor.chat_template or tokenizer.chat_template
    return model, tokenizer, ImageReader(processor)
