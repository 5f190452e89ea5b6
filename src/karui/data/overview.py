"""What `karui data list` and `karui data verify` print."""

from typing import Any

from karui.data import stdlib_docs
from karui.data.catalogue import SETS, TREE_SETS, NamedSet
from karui.data.fetch import entries_of
from karui.data.storage import data_root, find_file, hash_mismatch, missing_parts


def describe_sets() -> list[dict[str, Any]]:
    """Return one record a set; `here` is "complete", "subset" or "no"."""
    records = [_describe(entry) for entry in SETS.values()]
    return [
        *records,
        {
            "name": stdlib_docs.NAME,
            "title": f"documentation of Python's library, {len(stdlib_docs.FAMILIES)} families of modules",
            "here": "complete",
            "subset": False,
            "counts": {},
            "labels": list(stdlib_docs.FAMILIES),
            "licence": "Python Software Foundation License; read from the running Python, nothing to fetch",
            "homepage": "https://docs.python.org/3/library/",
        },
    ]


def _describe(entry: NamedSet) -> dict[str, Any]:
    entries = entries_of(entry.name) if entry.name in TREE_SETS else [entry]
    here = "complete"
    if any(missing_parts(each, complete=True) for each in entries):
        here = "no" if any(missing_parts(each) for each in entries) else "subset"
    return {
        "name": entry.name,
        "title": entry.title,
        "here": here,
        "subset": here == "subset",
        "counts": dict(entry.counts),
        "labels": list(entry.label_names),
        "licence": entry.licence,
        "homepage": entry.homepage,
    }


def verify_files(name: str | None = None) -> list[dict[str, str]]:
    """Check every file of one set or of all: records of `set`, `path`, `state` and `detail`.

    `state` is "ok", "wrong" (size or hash differs) or "absent" (no file holds this part; `path` is the one
    that would be fetched). Files shared by two sets are checked once.
    """
    if name == stdlib_docs.NAME:
        return []
    checks: dict[str, dict[str, str]] = {}
    for entry in entries_of(name) if name else SETS.values():
        folder = data_root() / entry.folder
        for part in entry.parts:
            present = [(folder / file.name, file) for file in part.files if (folder / file.name).is_file()]
            for path, file in present:
                problem = hash_mismatch(file, path)
                detail = problem or ("a subset of the published file" if file.subset else "")
                state = "wrong" if problem else "ok"
                checks[str(path)] = {"set": entry.name, "path": str(path), "state": state, "detail": detail}
            if find_file(folder, part) is None:
                path = folder / part.download.name
                checks[str(path)] = {"set": entry.name, "path": str(path), "state": "absent", "detail": ""}
    return list(checks.values())
