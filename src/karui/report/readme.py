"""The result table of the README, generated between two markers."""

from pathlib import Path

from karui.errors import UserError
from karui.files import atomic_write
from karui.report.records import read_records
from karui.report.tables import results_table

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def with_results(text: str, results_dir: Path, *, where: str = "the text") -> str:
    """Return a README's text with the table of `results_dir` between its markers.

    Raises:
        UserError: a marker is missing, or stands twice or in the wrong order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"{where}: needs one line {BEGIN} and below it one line {END}")
    table = results_table(read_records(results_dir))
    head, _, rest = text.partition(BEGIN)
    return (
        f"{head}{BEGIN}\n{table.to_markdown() + chr(10) if table.rows else ''}{END}{rest.partition(END)[2]}"
    )


def update_readme(readme_path: Path, results_dir: Path, *, check: bool = False) -> bool:
    """Regenerate the result table of a README; return whether it differed. With `check` nothing is written."""
    path = Path(readme_path)
    try:
        old = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; give the path of the README") from error
    new = with_results(old, Path(results_dir), where=str(path))
    if new != old and not check:
        atomic_write(path, new)
    return new != old
