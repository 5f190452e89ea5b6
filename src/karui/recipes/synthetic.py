"""Recipes of the adding and the copy problem."""

from karui.recipes.sequences import AddingRecipe, CopyRecipe
from karui.tasks.sequence_settings import LayerSettings
from karui.train.settings import TrainSettings

ADDING = AddingRecipe(
    model=LayerSettings(recurrent="gru", hidden_size=64, gate_bias=3.0),
    train=TrainSettings(max_epochs=10, lr=5e-3, grad_clip_norm=1.0, monitor="mse"),
)
COPY = CopyRecipe(
    model=LayerSettings(recurrent="gru", hidden_size=96, gate_bias=3.0),
    train=TrainSettings(max_epochs=10, lr=5e-3, grad_clip_norm=1.0, monitor="nll"),
)
RECIPES = {recipe.name: recipe for recipe in (ADDING, COPY)}
