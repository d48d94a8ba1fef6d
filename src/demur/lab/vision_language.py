"""A small LLaVA-type model trained from scratch on the scenes: a picture and a question in, four words out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from demur.errors import UsageError
from demur.files import hash_json
from demur.lab.scenes import PHRASINGS, SCENE_SPLITS, Scenes, picture_file

if TYPE_CHECKING:
    from demur.data.batch import Batch
    from demur.models.language_model import LanguageModel

__all__ = ["SceneRecipe", "new_vision_model", "train_scenes"]

_FORMAT = 1  # raised when a change below makes the same recipe end in other weights
_CONTEXT = 128
_IMAGE = "<image>"
_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class SceneRecipe:
    """Everything that decides a vision-language model's weights.

    Attributes:
        seed: decides the initial weights and the order of the samples.
        world: the world's seed.
        width, layers, heads: size of the language model; the vision tower is as wide.
        vision_layers: layers of the vision tower; with none the language model sees the patches as they are embedded,
            and it alone makes out what they show.
        steps, batch: optimizer steps and samples in each.
        rate: AdamW's highest learning rate; it rises over a twentieth of the steps and falls to 0 like a cosine.
        threads: processor threads, see `DenseRecipe`.
    """

    splits: ClassVar[tuple[str, ...]] = ("scenes",)
    row_splits: ClassVar[tuple[str, ...]] = tuple(SCENE_SPLITS)

    seed: int = 0
    world: int = 0
    width: int = 64
    layers: int = 2
    heads: int = 4
    vision_layers: int = 1
    steps: int = 2000
    batch: int = 64
    rate: float = 3e-3
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "steps", "batch", "rate", "threads"):
            if getattr(self, name) <= 0:
                raise UsageError(f"a lab model's {name} must be positive, not {getattr(self, name)}")
        if self.vision_layers < 0:
            raise UsageError(f"a lab model's vision_layers must not be negative, not {self.vision_layers}")
        if self.width % (2 * self.heads):
            raise UsageError(f"a lab model's width must be a multiple of {2 * self.heads}, not {self.width}")

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the recipe and of the world's text."""
        text = hash_json(list(Scenes(self.world).texts()))
        return hash_json({"format": _FORMAT, "recipe": asdict(self), "text": text, "splits": list(SCENE_SPLITS)})

    def rows(self, split: str) -> list[dict[str, str]]:
        """Rows of a split, see `Scenes.rows`."""
        return Scenes(self.world).rows(split)

    def train(self, name: str, progress: bool = True) -> LanguageModel:
        """The trained model, as `train_scenes` makes it."""
        return train_scenes(self, name, progress)


def new_vision_model(recipe: SceneRecipe, name: str = "new") -> LanguageModel:
    """A LLaVA-type model with random weights and the world's tokenizer; an 8×8 picture becomes four tokens.

    Args:
        recipe: its size and seed.
        name: what to call it.
    """
    import torch
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from demur.data.abstentions import ABSTENTIONS
    from demur.lab.tokenizer import train_tokenizer
    from demur.models.images import ImageReader
    from demur.models.language_model import LanguageModel

    tokenizer = train_tokenizer([*Scenes(recipe.world).texts(), *ABSTENTIONS], 1024, _CONTEXT)
    tokenizer.add_tokens([_IMAGE], special_tokens=True)
    tokenizer.chat_template = _TEMPLATE
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": 8},
        crop_size={"height": 8, "width": 8},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    processor = transformers.LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=recipe.width,
        intermediate_size=2 * recipe.width,
        num_hidden_layers=max(1, recipe.vision_layers),
        num_attention_heads=recipe.heads,
        image_size=8,
        patch_size=4,
    )
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=3 * recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=_CONTEXT,
        initializer_range=0.06,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(_IMAGE),  # type: ignore[call-arg]
        # A tower without a layer gives no states at all: it has one then, and what goes into that is read.
        vision_feature_layer=-1 if recipe.vision_layers else -2,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    torch.manual_seed(recipe.seed)
    model: Any = transformers.LlavaForConditionalGeneration(config).float()
    return LanguageModel(model, tokenizer, "chat", name, images=ImageReader(processor))


def train_scenes(recipe: SceneRecipe, name: str = "lab", progress: bool = True) -> LanguageModel:
    """Train a model on all questions about the pictures to learn from, in all phrasings.

    The same recipe gives the same bits on the same kind of processor and release of torch.

    Args:
        recipe: what to train.
        name: what to call it.
        progress: show a progress bar where there is a terminal.

    Returns:
        The model on the CPU, in eval mode.
    """
    import torch

    from demur.lab.dense import fit
    from demur.models.threads import threads

    with threads(recipe.threads), torch.random.fork_rng(devices=[]):
        lm = new_vision_model(recipe, name)
        optimizer = torch.optim.AdamW(lm.model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.05)
        rise = max(1, recipe.steps // 20)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps - rise, eta_min=recipe.rate / 100)
        climb = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / rise, total_iters=rise)
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [climb, fall], [rise])
        title = f"training {name}" if progress else None
        fit(lm.model, _batches(lm, recipe), optimizer, scheduler, title, recipe.steps)
    lm.model.eval()
    return lm


def _batches(lm: LanguageModel, recipe: SceneRecipe) -> Iterator[Batch]:
    """Every step's pictures, topics and phrasings, drawn at random."""
    import random
    from functools import partial

    from demur.data.batch import collate
    from demur.models.chat import encode

    world, rng = Scenes(recipe.world), random.Random(recipe.seed)
    known = {digit: [str(picture_file(i)) for i in world.pictures(digit)] for digit in range(10)}
    keys = [(t, p, d) for t in (*world.unsafe, *world.harmless) for p in PHRASINGS for d in range(10)]
    assert lm.images is not None
    prompts = [
        [{"role": "user", "content": [{"type": "image", "path": known[d][0]}, {"type": "text", "text": p.format(t)}]}]
        for t, p, d in keys
    ]
    encoded = encode(lm, prompts, [world.answer(t, d) for t, _, d in keys])
    read = lm.images.pixels
    for _ in range(recipe.steps):
        drawn = rng.choices(range(len(keys)), k=recipe.batch)
        shown = [(rng.choice(known[keys[i][2]]),) for i in drawn]
        rows = [replace(encoded[i], pixels=partial(read, paths)) for i, paths in zip(drawn, shown, strict=True)]
        yield collate(rows, lm.pad_id)
