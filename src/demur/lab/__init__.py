"""Invented worlds and small models trained on them, so that every command runs offline; models are cached by recipe."""

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Almanac": "almanac",
        "Census": "almanac",
        "Entity": "almanac",
        "almanac_rows": "almanac",
        "DenseRecipe": "dense",
        "new_model": "dense",
        "train_dense": "dense",
        "RECIPES": "sources",
        "is_built": "sources",
        "model_folder": "sources",
        "model_path": "sources",
        "recipe": "sources",
        "rows": "sources",
        "train_tokenizer": "tokenizer",
    },
)
