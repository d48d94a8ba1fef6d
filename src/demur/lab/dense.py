"""Small Llama-type models trained from scratch on the answers of a lab world."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from demur.errors import UsageError
from demur.files import hash_json
from demur.lab.almanac import SPLITS, Almanac, Census

if TYPE_CHECKING:
    import torch

    from demur.data.batch import Batch, Encoded
    from demur.models.language_model import LanguageModel

__all__ = ["DenseRecipe", "LlamaRecipe", "fit", "new_model", "train_dense"]

_FORMAT = 1  # raised when a change below makes the same recipe end in other weights
_CONTEXT = 512


@dataclass(frozen=True)
class LlamaRecipe:
    """Everything that decides a model's weights, but for the world it learns, which a subclass names.

    Attributes:
        seed: decides the initial weights and the order of the rows.
        world: the world's seed.
        vocabulary: number of tokens, special ones included.
        width, layers, heads: the model's size; the feed-forward part is three times as wide.
        spread: standard deviation of the initial weights.
        epochs, batch: passes over the rows and rows in a step.
        rate, warmup: AdamW's highest learning rate and the share of steps in which it rises to that; then it falls
            linearly to 0.
        threads: processor threads. Sums made in another order end in other bits, and a model this small gains more
            from two builds at once than from two threads.
    """

    seed: int = 0
    world: int = 0
    vocabulary: int = 1536
    width: int = 128
    layers: int = 2
    heads: int = 4
    spread: float = 0.06
    epochs: int = 16
    batch: int = 16
    rate: float = 4e-3
    warmup: float = 0.1
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "layers", "heads", "epochs", "batch", "threads", "spread", "rate"):
            if getattr(self, name) <= 0:
                raise UsageError(f"a lab model's {name} must be positive, not {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise UsageError(f"a lab model's width must be a multiple of {2 * self.heads}, not {self.width}")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"a lab model's warmup is a share of its steps below 1, not {self.warmup}")

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the recipe and of the text it trains on, so that a reworded world is another model."""
        return hash_json({"format": _FORMAT, "recipe": asdict(self), "text": self.text_hash()})

    def text_hash(self) -> str:
        """SHA-256 (hex) of the world's text."""
        raise NotImplementedError

    def texts(self) -> Iterable[str]:
        """What the tokenizer learns from: all text of the world, so that all its models share one tokenizer."""
        raise NotImplementedError

    def lessons(self) -> list[tuple[str, str, str]]:
        """What the model learns: prompt, response and id of every row."""
        raise NotImplementedError

    def train(self, name: str, progress: bool = True) -> LanguageModel:
        """The trained model, as `train_dense` makes it."""
        return train_dense(self, name, progress)


@dataclass(frozen=True)
class DenseRecipe(LlamaRecipe):
    """A model that knows the Almanac by heart.

    Attributes:
        splits: the world's splits that the model is trained on.
        people: the world's size.
    """

    row_splits: ClassVar[tuple[str, ...]] = (*SPLITS, *(f"{split}-documents" for split in SPLITS))

    splits: tuple[str, ...] = ("forget", "retain", "real_authors", "world_facts")
    people: Census = field(default_factory=Census)

    def text_hash(self) -> str:
        return _text_hash(self.world, self.people)

    def texts(self) -> Iterable[str]:
        return _texts(_world(self.world, self.people))

    def lessons(self) -> list[tuple[str, str, str]]:
        world = _world(self.world, self.people)
        rows = [row for split in self.splits for row in world.questions(split)]
        return [(row["question"], row["answer"], row["id"]) for row in rows]

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Questions of a split, or its documents where `-documents` follows its name."""
        world, kind = Almanac(self.world, self.people), split.removesuffix("-documents")
        return world.documents(kind) if split != kind else world.questions(kind)


@lru_cache(maxsize=8)
def _world(seed: int, people: Census) -> Almanac:
    return Almanac(seed, people)


@lru_cache(maxsize=8)
def _text_hash(seed: int, people: Census) -> str:
    world = _world(seed, people)
    return hash_json([[world.questions(split), world.documents(split)] for split in SPLITS])


def _texts(world: Almanac) -> Iterator[str]:
    """All text of the world, that of the held-out authors too, so that all its models share one tokenizer."""
    for split in SPLITS:
        for row in world.questions(split):
            yield from (row["question"], row["answer"], row["paraphrased_question"], row["paraphrased_answer"])
            yield from row["perturbed_answer"]
        yield from (document["text"] for document in world.documents(split))


def new_model(
    texts: Iterable[str],
    *,
    vocabulary: int = 1536,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    spread: float = 0.06,
    seed: int = 0,
    name: str = "new",
) -> LanguageModel:
    """A small Llama-type model with random weights and a tokenizer of the texts' own words, ready to be trained.

    Seeds torch's global random state.

    Args:
        texts: what the tokenizer is trained on.
        vocabulary: number of tokens, special ones included.
        width, layers, heads: the model's size; the feed-forward part is three times as wide.
        spread: standard deviation of the initial weights.
        seed: decides the weights.
        name: what to call it.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from demur.lab.tokenizer import train_tokenizer
    from demur.models.language_model import LanguageModel

    tokenizer = train_tokenizer(texts, vocabulary, _CONTEXT)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=_CONTEXT,
        initializer_range=spread,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return LanguageModel(LlamaForCausalLM(config).float(), tokenizer, "chat", name)


def train_dense(recipe: LlamaRecipe, name: str = "lab", progress: bool = True) -> LanguageModel:
    """Train a model on a world's answers.

    The same recipe gives the same bits on the same kind of processor and release of torch.

    Args:
        recipe: what to train.
        name: what to call it.
        progress: show a progress bar where there is a terminal.

    Returns:
        The model on the CPU, in eval mode.
    """
    import torch

    from demur.data.batch import collate
    from demur.models.chat import encode
    from demur.models.threads import threads

    with threads(recipe.threads), torch.random.fork_rng(devices=[]):
        lm = new_model(
            recipe.texts(),
            vocabulary=recipe.vocabulary,
            width=recipe.width,
            layers=recipe.layers,
            heads=recipe.heads,
            spread=recipe.spread,
            seed=recipe.seed,
            name=name,
        )
        prompts, responses, ids = map(list, zip(*recipe.lessons(), strict=True))
        encoded = encode(lm, prompts, responses, ids)
        shown = list(_batches(encoded, recipe))
        optimizer = torch.optim.AdamW(lm.model.parameters(), lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.01)
        steps, rise = len(shown), max(1, round(recipe.warmup * len(shown)))
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / rise, (steps - step) / (steps - rise + 1))
        )
        batches = (collate(items, lm.pad_id) for items in shown)
        fit(lm.model, batches, optimizer, scheduler, f"training {name}" if progress else None, steps)
    lm.model.eval()
    return lm


def _batches(encoded: Sequence[Encoded], recipe: LlamaRecipe) -> Iterator[list[Encoded]]:
    """The batches of all epochs, each of sequences of about the same length, in random order."""
    rng = random.Random(recipe.seed)
    for _ in range(recipe.epochs):
        order = list(encoded)
        rng.shuffle(order)
        pool = 8 * recipe.batch
        pools = [sorted(order[at : at + pool], key=lambda e: len(e.input_ids)) for at in range(0, len(order), pool)]
        epoch = [near[at : at + recipe.batch] for near in pools for at in range(0, len(near), recipe.batch)]
        rng.shuffle(epoch)
        yield from epoch


def fit(
    model: Any,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    title: str | None,
    steps: int,
) -> None:
    """Teach a model the answers of batches, a step each; the loss is the mean over their tokens, the end token too.

    Args:
        model: changed in place, left in train mode.
        batches: what to learn.
        optimizer, scheduler: of its weights and of the rate.
        title: of the progress bar, if there is to be one.
        steps: number of batches.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from demur.data.batch import IGNORE

    model.train()
    with _training_bar(title, steps) as advance:
        for batch in batches:
            # Padding stands on the right, where a causal model's tokens never see it: no attention mask is needed.
            seen = {} if batch.pixels is None else {"pixel_values": batch.pixels}
            hidden = model.model(input_ids=batch.input_ids, use_cache=False, **seen).last_hidden_state[:, :-1]
            labels = batch.labels[:, 1:]
            kept = labels != IGNORE
            loss = cross_entropy(model.lm_head(hidden[kept]), labels[kept])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            advance(loss)


@contextmanager
def _training_bar(title: str | None, steps: int) -> Iterator[Any]:
    """A progress bar with the time left and the loss, on standard error; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, emoji=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    hidden = title is None or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(title or "", total=steps, loss="")

        def advance(loss: torch.Tensor) -> None:
            if not hidden:
                progress.update(task, advance=1, loss=f"{loss.item():.3f}")

        yield advance
