"""What is tried by `bad_input.py`: commands, and what must come of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TRAIN = "train classify --quiet --epochs 2 --set train.threads=1"
TRAIN_LM = (
    "train lm --quiet --epochs 1 --set train.threads=1 --set model.hidden_size=8 --set model.num_layers=1"
    " --set model.num_samples=8 --set data.batch_size=4"
)
EAGER = f"{TRAIN} --set train.checkpoint_every_s=0 --data reviews.csv"
FULL_REASON, READ_ONLY_REASON = "the disk is full; free some space", "read-only file system; choose another"


@dataclass(frozen=True)
class Case:
    """One command (without `karui`) and what must come of it."""

    name: str
    command: str
    says: Sequence[str] = ()
    """Parts of the one line on stderr; none: the command must work."""

    writes: str = ""
    """Pattern of the files that may appear."""

    lines: int | None = None
    """Lines that must be on stdout."""

    disk: str = ""
    """A key of DISKS: where the folder "disk" lies."""

    survives: str = ""
    """A checkpoint that must be whole afterwards, every weight finite."""

    keep: bool = False
    """Later cases need the files of this one."""

    stdin: str = ""


def bad_data() -> list[Case]:
    """Data sets that cannot be read or learned."""

    def case(name: str, data: str, *says: str, options: str = "") -> Case:
        return Case(name, f"{TRAIN} --data {data} --out new {options}".strip(), [data, *says])

    return [
        case("missing column", "reviews.csv", "'body'", "--text", "'text', 'label'", options="--text body"),
        case("columns that cannot be guessed", "unnamed.csv", "--text NAME"),
        case("train on invalid UTF-8, CSV", "latin1.csv", "line 3", "not UTF-8", "convert"),
        case("train on invalid UTF-8, JSONL", "latin1.jsonl", "line 2", "not UTF-8", "convert"),
        case("train on NUL bytes, CSV", "nul.csv", "line 50", "NUL byte; remove it"),
        case("ragged CSV", "ragged.csv", "line 3", "2", "3"),
        case("broken JSONL", "broken.jsonl", "line 2", "JSON"),
        case("one class only", "one_class.csv", "'good'", "two"),
        case("train on an empty file", "empty.csv", "empty"),
        case("train on a header alone", "header.csv", "no rows"),
        case("train on a missing file", "absent.csv", "no such"),
        case("train on an empty folder", "hollow", "no"),
        case("train on a .karui file", "model.karui", "unknown format '.karui'; known are .csv"),
        Case(
            "eval on a missing column",
            "eval model.karui --data reviews.csv --label stars",
            ["'stars'", "--label"],
        ),
        Case(
            "eval of a file, unknown label",
            "eval model.karui --data other.csv",
            ["other.csv", "line 3", "'meh'"],
        ),
        Case("eval of a run, unknown label", "eval run --data other.csv", ["other.csv", "line 3", "'meh'"]),
        Case("eval on a missing file", "eval model.karui --data absent.csv", ["absent.csv", "no such"]),
        Case("predict on invalid UTF-8", "predict model.karui latin1.csv", ["latin1.csv, line 3", "convert"]),
        Case(
            "predict on a missing file",
            "predict model.karui absent.txt",
            ["absent.txt", "check the spelling"],
        ),
        Case("predict on a folder", "predict model.karui run", ["run", "folder", "name a file"]),
    ]


def odd_data() -> list[Case]:
    """Unusual texts that must work."""
    return [
        Case(
            "train on empty texts, a text of 1 MB, NUL bytes",
            f"{TRAIN} --data odd.jsonl --out new",
            writes="new/*",
        ),
        Case("train on a CSV field of 1 MB", f"{TRAIN} --data long.csv --out new", writes="new/*"),
        Case("predict an empty text", "predict model.karui", stdin="\n\n", lines=2),
        Case("predict from an empty file", "predict model.karui empty.csv", lines=0),
        Case("predict a text of 1 MB", "predict model.karui long.csv", lines=50),
        Case("predict NUL bytes", "predict model.karui nul.csv", lines=50),
        Case("eval of a text of 1 MB", "eval model.karui --data long.csv --json", lines=1),
    ]


def bad_files() -> list[Case]:
    """Artifacts that are damaged, missing, or something else."""
    cases = []
    for file, reason in {
        "truncated.karui": "checksum",
        "flipped.karui": "checksum",
        "oversized.karui": "the plain part is longer than the file",
        "empty.csv": "no karui artifact; give a file",
        "reviews.csv": "no karui artifact",
        "absent.karui": "no such file",
        "hollow": "folder",
    }.items():
        for verb, rest in {"predict": " reviews.csv", "inspect": "", "eval": " --data reviews.csv"}.items():
            if (verb, file) != ("eval", "hollow"):
                cases.append(Case(f"{verb} of {file}", f"{verb} {file}{rest}", [file, reason]))
    return [
        *cases,
        Case(
            "bench of a damaged file",
            "bench runtime flipped.karui reviews.csv",
            ["flipped.karui", "checksum"],
        ),
        Case("predict with a run folder", "predict run reviews.csv", ["run", "karui compact"]),
    ]


def bad_runs() -> list[Case]:
    """Run folders and options that do not fit."""
    resume = f"{TRAIN} --data reviews.csv --out run --resume"
    return [
        *(
            Case(f"{verb} of a run without checkpoints", f"{verb} bare{rest}", ["bare", "--resume"])
            for verb, rest in {"compact": " -o new.karui", "eval": " --data reviews.csv"}.items()
        ),
        Case("compact of a folder that is no run", "compact hollow -o new.karui", ["hollow", "karui train"]),
        Case("compact of a .karui file", "compact model.karui -o new.karui", ["model.karui", "karui train"]),
        Case(
            "compact of a cut checkpoint",
            "compact cut -o new.karui",
            ["cut/checkpoints/final", "train again"],
        ),
        Case("compact to a folder", "compact run -o hollow --no-baseline", ["hollow", "name a file"]),
        Case("compact to a missing folder", "compact run -o no/m.karui", ["no/m.karui", "create it first"]),
        Case(
            "compact to an impossible size", "compact run -o new.karui --max-bytes 10 --no-baseline", ["10"]
        ),
        Case("compact to an unreadable size", "compact run -o new.karui --max-bytes tiny", ["'tiny'", "kB"]),
        Case(
            "resume with another recipe", f"{resume} --set train.lr=0.5", ["run", "train.lr", "leave it out"]
        ),
        Case("resume with other data", f"{resume} --data other.csv", ["data.name", "leave it out"]),
        Case(
            "train into a run without --resume", f"{TRAIN} --data reviews.csv --out run", ["run", "--resume"]
        ),
        Case(
            "train into a .karui file",
            f"{TRAIN} --data reviews.csv --out model.karui",
            ["model.karui", "--out"],
        ),
        Case("unknown option", "train classify --out new --epoch 3", ["--epoch", "--help"]),
        Case(
            "unknown setting",
            f"{TRAIN} --out new --set train.lrr=1",
            ["train.lrr", "did you mean 'train.lr'"],
        ),
        Case("setting without a value", f"{TRAIN} --out new --set train.lr", ["train.lr", "="]),
        Case("setting of a wrong type", f"{TRAIN} --out new --set train.lr=fast", ["train.lr", "'fast'"]),
        Case("setting out of range", f"{TRAIN} --out new --set train.lr=-1", ["train.lr", "> 0"]),
        Case("unknown layer", f"{TRAIN} --out new --recurrent rnn", ["model.recurrent", "mingru, none"]),
        Case(
            "unknown recipe",
            f"{TRAIN} --out new --recipe clasification",
            ["'clasification'", "classification"],
        ),
        Case("unknown data set", f"{TRAIN} --out new --data imbd", ["imbd", "did you mean 'imdb'"]),
        Case("unknown verb", "pedict model.karui", ["'pedict'", "predict"]),
        Case("unknown values", "compact run -o new.karui --values int4", ["'int4'", "int8"]),
    ]


def bad_luck() -> list[Case]:
    """A loss that is no number, a full disk, a read-only one."""
    compact = "compact run --no-baseline -o"
    full: Any = {"disk": "full", "writes": "after/*"}
    locked: Any = {"disk": "read-only", "writes": "after/*"}
    diverged, last = f"{EAGER} --set train.lr=1e30 --out diverged", "checkpoints/last.safetensors"
    return [
        Case(
            "NaN loss",
            diverged,
            ["the loss", "train.lr"],
            "diverged/*",
            survives=f"diverged/{last}",
            keep=True,
        ),
        Case(
            "NaN loss, resumed",
            f"{diverged} --resume",
            ["the loss", "train.lr"],
            "diverged/tensorboard/*",
            survives=f"diverged/{last}",
        ),
        Case("train on a full disk", f"{EAGER} --out disk/new", ["disk/new", FULL_REASON], **full),
        Case(
            "train until the disk is full",
            f"{EAGER} --sparse vd --out disk/half",
            [last, FULL_REASON, "continue with --resume"],
            disk="nearly full",
            writes="after/half/*",
            survives=f"after/half/{last}",
            keep=True,
        ),
        Case(
            "resume where there is space",
            f"{EAGER} --sparse vd --out after/half --resume",
            writes="after/half/*",
        ),
        Case("compact on a full disk", f"{compact} disk/m.karui", ["disk/m.karui", FULL_REASON], **full),
        Case(
            "compact over a file, full disk",
            f"{compact} disk/model.karui",
            ["disk/model", FULL_REASON],
            **full,
        ),
        Case(
            "predict to a full disk",
            "predict model.karui reviews.csv > disk/new",
            ["output", FULL_REASON],
            **full,
        ),
        Case(
            "train on a read-only disk", f"{EAGER} --out disk/new", ["disk/new", READ_ONLY_REASON], **locked
        ),
        Case(
            "compact on a read-only disk", f"{compact} disk/m.karui", ["disk/m", READ_ONLY_REASON], **locked
        ),
        Case("report on a read-only disk", "report disk/run", ["disk/run", READ_ONLY_REASON], **locked),
        Case("predict on a read-only disk", "predict disk/model.karui reviews.csv", lines=49, **locked),
    ]
