"""Tables of time: of compacted networks beside dense ones, and of a training step with gates beside a dense step."""

from karui.report.groups import Records
from karui.report.sparse_figures import METHODS
from karui.report.tables import Column, Table

SPEED, STEP = "compact-speed", "gate-step"
"""Recipes of the records of `benchmarks/compact_speed.py` and `benchmarks/gate_step.py`."""
STEPS_OF = {"lenet-300-100": "LeNet-300-100", "sru 16/16": "film reviews"}


def speed_table(records: Records) -> Table:
    """FLOPs and milliseconds of dense and compacted networks of `benchmarks/compact_speed.py`, a row a measurement."""
    names = ("FLOPs of the dense one over those left", "its time over the time left", "second over first")
    table = Table([Column("network"), Column("live units"), *(Column(name, number=True) for name in names)])
    for record in records:
        if record["recipe"] != SPEED:
            continue
        metrics = record["metrics"]
        for key, title in (("lenet-300-100", "LeNet-300-100"), ("imdb", "film reviews")):
            units = "-".join(map(str, metrics[key]["architecture"]))
            for part, each in metrics[key].items():
                if isinstance(each, dict):
                    cells = [f"{each[name]:.2f}" for name in ("flops_ratio", "time_ratio", "quotient")]
                    table.rows.append([f"{title}, {part}", units, *cells])
    return table


def steps_table(records: Records) -> Table:
    """Milliseconds of a training step, and over those of the dense step, of `benchmarks/gate_step.py`."""
    columns = (Column("milliseconds", number=True), Column("over the dense step", number=True))
    table = Table(
        [Column("network"), Column("method"), Column("what has a gate, a noise or a mask"), *columns]
    )
    for record in records:
        if record["recipe"] != STEP:
            continue
        for key, title in STEPS_OF.items():
            for label, each in record["metrics"].get(key, {}).items():
                method, _, groups = str(label).partition(" ")
                cells = [f"{each['step_ms']:.2f}", f"{each['ratio']:.2f}"]
                table.rows.append([title, METHODS.get(method, method), groups or "–", *cells])
    return table
