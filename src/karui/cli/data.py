"""`karui data`: what the named sets are, which are here, fetching them and checking their bytes."""

import json
from typing import Annotated, Any

import typer

from karui.errors import UserError

app = typer.Typer(no_args_is_help=True, help="List, fetch and verify the named data sets.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]


@app.callback()
def _data() -> None:
    """List, fetch and verify the named data sets.

    They lie below $KARUI_DATA, or ~/.cache/karui/data when that is not set.
    """


@app.command("list")
def list_sets(as_json: Json = False) -> None:
    """List the named sets: what each is, its published sizes, its licence, and whether it is here."""
    from karui.data.overview import describe_sets
    from karui.data.storage import data_root

    described = describe_sets()
    if as_json:
        _print_json({"data_root": str(data_root()), "sets": described})
        return
    typer.echo(f"data root: {data_root()}")
    for entry in described:
        counts = " / ".join(f"{split} {count:,}" for split, count in entry["counts"].items())
        typer.echo(f"{entry['name']:<12} {entry['here']:<8} {entry['title']}; {counts}")
        typer.echo(f"{'':<21} {entry['licence']}")


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="A named set, see karui data list.")], as_json: Json = False
) -> None:
    """Fetch a set from its canonical address into the data root and check its hash.

    What is there already is not fetched again; a set held as a subset is completed.
    """
    from karui.data.fetch import entries_of, fetch_entry
    from karui.data.stdlib_docs import NAME

    entries = [] if name == NAME else entries_of(name)
    fetched = [str(path) for entry in entries for path in fetch_entry(entry, complete=True)]
    if as_json:
        _print_json({"name": name, "fetched": fetched})
    elif fetched:
        typer.echo("\n".join(f"fetched and checked: {path}" for path in fetched))
    else:
        typer.echo(f"{name}: complete, nothing to fetch")


@app.command("verify")
def verify(
    name: Annotated[str | None, typer.Argument(help="A named set; all of them when left out.")] = None,
    as_json: Json = False,
) -> None:
    """Compare the size and hash of every file that is here with the published ones.

    Exit code 2 when a file differs, or when NAME is given and one of its parts is not here.
    """
    from karui.data.overview import verify_files

    checks = verify_files(name)
    if as_json:
        _print_json({"files": checks})
    else:
        for check in checks:
            detail = f" ({check['detail']})" if check["detail"] else ""
            typer.echo(f"{check['state']:<7} {check['path']}{detail}")
    wrong = [check for check in checks if check["state"] == "wrong"]
    absent = [check for check in checks if check["state"] == "absent"] if name else []
    if wrong:
        raise UserError(
            f"{wrong[0]['path']}: not the published file;"
            f" move it away, then: karui data fetch {wrong[0]['set']}"
        )
    if absent:
        raise UserError(f"{absent[0]['path']}: not there; fetch it with: karui data fetch {name}")


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))
