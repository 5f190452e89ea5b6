"""The named sets: each file format of the catalogue, read without unpacking it to disk."""

import csv
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from karui.data.catalogue import SETS, TREE_SETS, NamedSet
from karui.data.dataset import Splits, TextDataset
from karui.data.splitting import FOLD_SEED, FOLDS, fold_indices, stratified_split
from karui.data.storage import checked_path
from karui.data.trees import training_phrases
from karui.errors import UserError

FOLDED_SETS = ("mr", "subj", "cr", "mpqa")


def load_named(
    name: str,
    *,
    valid_fraction: float = 0.1,
    seed: int = 0,
    fold: int | None = None,
    phrases: bool | None = None,
) -> Splits:
    """Read a set whose files are below the data root. Arguments as in `karui.data.load_splits`."""
    entry = SETS[name]
    if fold is not None and name not in FOLDED_SETS:
        raise UserError(f"{name} has its own test part: fold is for {', '.join(FOLDED_SETS)}")
    if phrases and name not in TREE_SETS:
        raise UserError(f"{name} has no parse trees: phrases is for {', '.join(TREE_SETS)}")
    if name in FOLDED_SETS:
        return _load_folded(entry, valid_fraction=valid_fraction, seed=seed, fold=fold)
    if name in TREE_SETS:
        return _load_sst(entry, phrases=phrases is not False)
    train, test = {"imdb": _load_imdb, "ag_news": _load_ag_news, "trec": _load_trec}[name](entry)
    notes = ()
    if train.subset:
        notes = (f"train is a SUBSET: {len(train):,} of the {entry.counts['train']:,} published documents",)
    return split_off_valid(train, test, valid_fraction=valid_fraction, seed=seed, notes=notes)


def split_off_valid(
    train: TextDataset,
    test: TextDataset | None,
    *,
    valid_fraction: float,
    seed: int,
    notes: tuple[str, ...] = (),
) -> Splits:
    """Cut a stratified share of the training part off for validation; the test part is not looked at."""
    rest, part = stratified_split(train.labels, valid_fraction, seed)
    if valid_fraction > 0 and len(part) == 0:
        raise UserError(
            f"{train.source}: {len(train)} rows are too few to cut a validation part off;"
            " give at least two texts of one label"
        )
    share = f"valid: {len(part):,} of {len(train):,} training documents, stratified, seed {seed}"
    return Splits(
        train=train.take(rest, source=f"{train.source} (train)"),
        valid=train.take(part, source=f"{train.source} (valid, cut from train)"),
        test=test,
        label_names=train.label_names,
        name=train.name,
        subset=train.subset,
        notes=[*notes, share],
    )


def _dataset(
    entry: NamedSet, rows: list[tuple[int, str]], path: Path, *, subset: bool = False
) -> TextDataset:
    return TextDataset(
        texts=[text for _, text in rows],
        labels=np.array([label for label, _ in rows], dtype=np.int64),
        label_names=list(entry.label_names),
        name=entry.name,
        subset=subset,
        source=path.name,
    )


def _read_text(path: Path, encoding: str = "utf-8") -> str:
    opener: Callable = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    with opener(path, "rb") as stream:
        return stream.read().decode(encoding)


def _load_imdb(entry: NamedSet) -> tuple[TextDataset, TextDataset]:
    """Read the 50,000 labelled reviews out of the archive (2 to 4 s), ordered by split, label and file name.

    The 50,000 unlabelled reviews, which the official archive also holds, are passed over.
    """
    path, _ = checked_path(entry, "all")
    wanted = {f"aclImdb/{split}/{label}": (split, index)
              for split in ("train", "test") for index, label in enumerate(("neg", "pos"))}  # fmt: skip
    reviews: dict[str, list[tuple[int, int, str]]] = {"train": [], "test": []}
    with tarfile.open(path) as archive:
        for member in archive:
            folder, _, file_name = member.name.rpartition("/")
            if folder in wanted and member.isfile():
                stream = archive.extractfile(member)
                assert stream is not None
                split, label = wanted[folder]
                number = int(file_name.partition("_")[0])
                reviews[split].append((label, number, stream.read().decode("utf-8")))
    parts = []
    for split in ("train", "test"):
        rows = [(label, text) for label, _, text in sorted(reviews[split])]
        if len(rows) != entry.counts[split]:
            raise UserError(f"{path}: {len(rows)} {split} reviews, {entry.counts[split]} expected")
        parts.append(_dataset(entry, rows, path))
    return parts[0], parts[1]


def _load_ag_news(entry: NamedSet) -> tuple[TextDataset, TextDataset]:
    """Read rows `label, title, description`; in the subset, `label, both texts, origin of the row`.

    The third column of the subset says which partial copy a row came from: it is not text and is not read.
    """
    parts = []
    for role in ("train", "test"):
        path, file = checked_path(entry, role)
        table = csv.reader(io.StringIO(_read_text(path), newline=""))
        rows = []
        for row in table:
            columns = row[1:2] if file.subset else row[1:]
            text = " ".join(columns).replace("\\", " ")  # a backslash stands for a line break
            rows.append((int(row[0]) - 1, text))
        parts.append(_dataset(entry, rows, path, subset=file.subset))
    return parts[0], parts[1]


def _read_numbered(entry: NamedSet, role: str) -> TextDataset:
    """Read lines `LABEL TEXT`. Kim's files mix encodings: Latin-1 where the bytes are not UTF-8."""
    path, _ = checked_path(entry, role)
    try:
        content = _read_text(path)
    except UnicodeDecodeError:
        content = _read_text(path, "latin-1")
    rows = []
    for line in content.removesuffix("\n").split("\n"):  # splitlines() would also cut at U+0085, which occurs
        label, _, text = line.partition(" ")
        rows.append((int(label), text.strip()))
    return _dataset(entry, rows, path)


def _load_trec(entry: NamedSet) -> tuple[TextDataset, TextDataset]:
    return _read_numbered(entry, "train"), _read_numbered(entry, "test")


def _load_folded(entry: NamedSet, *, valid_fraction: float, seed: int, fold: int | None) -> Splits:
    whole = _read_numbered(entry, "all")
    fold = 0 if fold is None else fold
    rest, held_out = fold_indices(len(whole), fold)
    test = whole.take(held_out, source=f"{whole.source} (fold {fold})")
    note = f"test: fold {fold} of {FOLDS} (cross-validation, shuffle seed {FOLD_SEED})"
    return split_off_valid(whole.take(rest), test, valid_fraction=valid_fraction, seed=seed, notes=(note,))


def _load_sst(entry: NamedSet, *, phrases: bool) -> Splits:
    """Read the official sentences; with `phrases`, train on every distinct phrase of the training trees."""
    train, valid, test = (_read_numbered(entry, role) for role in ("train", "valid", "test"))
    if phrases:
        path, _ = checked_path(SETS["sst_trees"], "train")
        rows = training_phrases(_read_text(path), binary=entry.name == "sst2")
        note = f"train: {len(rows):,} distinct phrases of the {len(train):,} training sentences' trees"
        train = _dataset(entry, rows, path)
    else:
        note = "train: sentences only, without their phrases"
    train.source, valid.source, test.source = "SST (train)", "SST (valid)", "SST (test)"
    notes = [note, "valid and test: the official sentences"]
    return Splits(train, valid, test, train.label_names, entry.name, notes=notes)
