"""Named sets of hyper-parameters: `"recipe": "thesis"` in the config stands for all of them at once.

A recipe overrides the file, which usually holds every key; `--set` overrides the recipe, as it is what the user asks
for now.
"""

from __future__ import annotations

from typing import Any, Literal

Recipe = Literal["default", "thesis"]

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "thesis": {
        "vision": {
            "association": "mse",
            "auto_encoder": "mse",
            "codes": "sigmoid",
            "bridge": "flatten",
            "cut": "groups",
            "shortcut": "stride",
            "enc_dim": 1000,
            "ae_dim": 700,
            "act": "relu",
            "head_act": "sigmoid",
            "width": 1.0,
            "image_size": 32,
            "augmentation": "strong",
            "train_batch_size": 128,
            "test_batch_size": 512,
            "epochs": 200,
            "base_lr": 1e-4,
            "end_lr": 1e-5,
            "warmup": 0.0,
            "weight_decay": 0.0,
            "label_smoothing": 0.0,
        },
        "text": {
            "association": "mse",
            "auto_encoder": "auto",
            "codes": "tanh",
            "act": "tanh",
            "bridge": "linear",
            "reading": "last",
            "cut": "apart",
            "x_hid": 256,
            "y_hid": 128,
            "al_layers": 3,
            "n_layers": 1,
            "n_heads": "auto",
            "dropout": 0.3,
            "word_dropout": 0.0,
            "pretrained_model": "glove",
            "embedding_dim": 300,
            "vocab_size": 30000,
            "max_len": "auto",
            "batch_size": 256,
            "epochs": 20,
            "lr": 2.5e-4,
            "end_lr": 2.5e-4,
            "warmup": 0.0,
            "weight_decay": 0.0,
            "label_smoothing": 0.0,
        },
    }
}
"""What each recipe sets, by task. "thesis": the shapes, losses and settings of Wu's thesis and of Wu, Lin, Chen & Chen
2022, without the faults of their code (a bounded decoder before a cross-entropy, padding that is read)."""


def apply_recipe(values: dict[str, Any], task: str, overridden: set[str]) -> dict[str, Any]:
    """Return the values with those of the recipe that they name laid over them, except for the `overridden` keys.

    If an overridden key belongs to the recipe and has another value, the result is no longer that recipe: `recipe`
    becomes "default", and the values themselves say everything, so that they can be saved and read again. An unknown
    recipe is left for the schema to refuse.
    """
    name = values.get("recipe", "default")
    if not isinstance(name, str) or name not in RECIPES:
        return values
    recipe = RECIPES[name][task]
    laid = {**values, **{key: value for key, value in recipe.items() if key not in overridden}}
    if any(laid[key] != value for key, value in recipe.items()):
        laid["recipe"] = "default"
    return laid
