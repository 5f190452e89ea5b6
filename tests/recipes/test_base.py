import dataclasses
import json

import pytest

from karui import recipes
from karui.errors import UserError
from karui.recipes import base
from karui.recipes.classification import ClassificationRecipe
from karui.tasks.settings import ModelSettings
from karui.train.settings import TrainSettings

RECIPE = ClassificationRecipe()


def test_every_named_recipe_survives_json():
    for name in recipes.names():
        recipe = recipes.get(name)
        assert recipe.name == name
        assert base.from_dict(type(recipe), json.loads(json.dumps(base.to_dict(recipe)))) == recipe


def test_recipe_survives_a_file(tmp_path):
    changed = dataclasses.replace(
        RECIPE, train=TrainSettings(milestones=(3, 5)), expect={"test_accuracy": 0.9}
    )
    base.save(changed, tmp_path / "config.json")
    assert base.load(ClassificationRecipe, tmp_path / "config.json") == changed


def test_defaults_are_those_of_the_prototype():
    train, model, data = RECIPE.train, RECIPE.model, RECIPE.data
    assert (train.lr, train.schedule, train.decay_start, train.penalty_ramp) == (4e-3, "linear", 0.5, 0.45)
    assert (model.embedding_dim, model.hidden_size, model.directions, model.recurrent) == (16, 16, 2, "sru")
    assert (model.pooling, model.word_scores, data.batch_size, data.max_words) == (
        "mean+max",
        True,
        64,
        20_000,
    )
    sparse = recipes.get("classification-sparse").sparse
    assert (sparse.method, sparse.threshold, sparse.log_sigma_init) == ("vd", 3.0, -3.0)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("train.lr=1e-3", 1e-3),
        ("train.lr=1", 1.0),
        ("train.betas=0.8,0.99", (0.8, 0.99)),
        ("train.milestones=[3, 5]", (3, 5)),
        ("train.milestones=", ()),
        ("sparse.groups=word", ("word",)),
        ("sparse.groups=word,neuron", ("word", "neuron")),
        ("data.fold=3", 3),
        ("data.fold=none", None),
        ("data.name=a=b.csv", "a=b.csv"),
        ("data.text=7", "7"),
        ("model.word_scores=False", False),
        ("model.recurrent=lstm", "lstm"),
        ('expect={"test_accuracy": 0.9}', {"test_accuracy": 0.9}),
    ],
)
def test_override_is_read_by_the_type_of_its_field(override, wanted):
    value = base.with_overrides(RECIPE, [override])
    for name in override.partition("=")[0].split("."):
        value = getattr(value, name)
    assert value == wanted
    assert type(value) is type(wanted)


def test_overrides_apply_in_order_and_leave_the_recipe_alone():
    changed = base.with_overrides(RECIPE, ["train.lr=1", "model.hidden_size=650", "train.lr=2"])
    assert (changed.train.lr, changed.model.hidden_size) == (2.0, 650)
    assert RECIPE.model == ModelSettings()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hidden_siz=3", "no setting 'model.hidden_siz'; did you mean 'model.hidden_size'?"),
        ("lr=3", "no setting 'lr'; did you mean 'train.lr'?"),
        ("trian.lr=3", "no setting 'trian.lr'; did you mean 'train.lr'?"),
        ("zzz=3", "no setting 'zzz'; the settings are name, data.name, data.text, "),
        ("train.lr", "cannot read 'train.lr'; write a name, =, and a value, such as train.lr=1e-3"),
        ("train.lr=fast", "train.lr must be number, got 'fast'"),
        ("train.lr=nan", "train.lr must be number, got nan"),
        ("train.max_epochs=2.5", "train.max_epochs must be whole number, got '2.5'"),
        ("train.max_epochs=0", "train.max_epochs must be >= 1, got 0"),
        ("data.fold=x", "data.fold must be whole number, got 'x'"),
        ("model.word_scores=yes", "model.word_scores must be true or false, got 'yes'"),
        (
            "model.recurrent=lstmm",
            "must be one of sru, statistical-ru, lstm, gru, qrnn, mingru, none, got 'lstmm'; did you mean 'lstm'?",
        ),
        ("sparse.groups=word,gats", "8x4, got 'gats'; did you mean 'gate'?"),
        ("train.betas=0.9", "train.betas must be 2 values: number, number, got [0.9]"),
        ("train=3", "train is a group; set one of its fields, such as train.max_epochs"),
        ("train.lr.x=3", "train.lr has no fields, so train.lr.x cannot be set"),
    ],
)
def test_wrong_override_is_refused(override, message):
    with pytest.raises(UserError) as error:
        base.with_overrides(RECIPE, [override])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"lr": "0.1"}}, "train.lr must be number, got '0.1'"),
        ({"train": {"max_epochs": True}}, "train.max_epochs must be whole number, got True"),
        ({"train": {"max_epochs": 3.0}}, "train.max_epochs must be whole number, got 3.0"),
        ({"model": {"word_scores": 1}}, "model.word_scores must be true or false, got 1"),
        ({"train": 3}, "train must be a group of named values, got 3"),
        ({"train": {"learning_rate": 1}}, "no setting 'train.learning_rate'"),
        ({"sparse": {"groups": "word"}}, "sparse.groups must be list of one of weight, word,"),
    ],
)
def test_wrong_file_content_is_refused(values, message):
    with pytest.raises(UserError) as error:
        base.from_dict(ClassificationRecipe, values)
    assert message in str(error.value)


def test_unreadable_files_are_one_line(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(UserError, match=r"there is no .*config\.json"):
        base.load(ClassificationRecipe, path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        base.load(ClassificationRecipe, path)
    path.write_text('{"train": {"lr": "fast"}}')
    with pytest.raises(UserError, match=r"config\.json: train\.lr must be number, got 'fast'"):
        base.load(ClassificationRecipe, path)


def test_unknown_recipe_proposes_the_nearest():
    with pytest.raises(UserError, match="no recipe 'clasification'; did you mean 'classification'"):
        recipes.get("clasification")


def test_listing_documents_every_field():
    lines = {line.name: line for line in base.fields_of(ClassificationRecipe)}
    assert all(line.doc for line in lines.values())
    assert lines["train.grad_clip_norm"].default == "0.0"
    assert lines["data.fold"].type == "whole number or none"
    assert lines["model.pooling"].type == "one of last, mean, max, mean+max"
    assert len(lines) == 1 + 1 + sum(
        len(dataclasses.fields(type(part)))
        for part in vars(RECIPE).values()
        if dataclasses.is_dataclass(part)
    )
