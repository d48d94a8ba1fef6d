"""Invented worlds and small models trained on them, so that every command runs offline; models are cached by recipe."""

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "ABACUS_SPLITS": "abacus",
        "Abacus": "abacus",
        "AbacusRecipe": "abacus_model",
        "Almanac": "almanac",
        "CHARTER_SPLITS": "charter",
        "Census": "almanac",
        "Charter": "charter",
        "CharterRecipe": "charter_model",
        "Entity": "almanac",
        "almanac_rows": "almanac",
        "DenseRecipe": "dense",
        "SCENE_SPLITS": "scenes",
        "SceneRecipe": "vision_language",
        "Scenes": "scenes",
        "Town": "charter",
        "Workbook": "abacus",
        "new_model": "dense",
        "new_vision_model": "vision_language",
        "train_dense": "dense",
        "train_scenes": "vision_language",
        "RECIPES": "sources",
        "is_built": "sources",
        "model_folder": "sources",
        "model_path": "sources",
        "recipe": "sources",
        "rows": "sources",
        "train_tokenizer": "tokenizer",
    },
)
