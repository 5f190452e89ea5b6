"""Tables and figures from `results/*.json` and run folders; matplotlib and rich are imported when used."""

from karui.report.page import write_report
from karui.report.readme import update_readme
from karui.report.records import read_records, write_record
from karui.report.schema import load_run
from karui.report.tables import Table, results_table, run_table

__all__ = [
    "Table",
    "load_run",
    "read_records",
    "results_table",
    "run_table",
    "update_readme",
    "write_record",
    "write_report",
]
