"""Run the benchmarks, print one table, and say with the exit code whether all targets were met.

python -m benchmarks                 all of them, a few minutes
python -m benchmarks --only fit      one
python -m benchmarks --save          also write benchmarks/results/<machine>.json and .md; with --only beside it, the
                                     rows of the others stay, if they were measured in the same surroundings
"""

import argparse
import dataclasses
import importlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}  # read when numpy and torch load

from benchmarks.harness import Row, environment, machine, record, table

NAMES = (
    "fit", "autograd", "batches", "import", "vision", "detection", "recurrent", "sequence", "transformers", "optimizers",
    "tokens",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results"


def save(rows: list[Row], folder: Path = RESULTS, *, part: bool = False) -> Path:
    """Write both files, named after the machine so that another one's stay; a part goes to the other rows of before."""
    folder.mkdir(exist_ok=True)
    path = folder / (re.sub(r"[^a-z0-9]+", "-", machine().lower()).strip("-") + ".json")
    if part and path.exists():
        rows = others(json.loads(path.read_text()), rows) + rows
    path.write_text(json.dumps(record(rows), indent=2) + "\n")
    surroundings = ", ".join(f"{key} {value}" for key, value in environment().items())
    path.with_suffix(".md").write_text(f"{surroundings}\n\n{table(rows)}\n")
    return path


def others(stored: dict[str, Any], rows: list[Row]) -> list[Row]:
    """Stored rows that are not among the new ones, if all that numbers depend on besides the code is as it was."""
    if any(stored[key] != value for key, value in environment().items()):
        return []
    fields = [field.name for field in dataclasses.fields(Row)]
    new = {row.name for row in rows}
    return [Row(**{key: row[key] for key in fields}) for row in stored["rows"] if row["name"] not in new]


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if all targets were met, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=NAMES, action="append", help="run this one (can be given several times)")
    parser.add_argument("--rounds", type=int, default=15, help="how often each side is timed, at least 2 (default: 15)")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: quartiles need at least 2")
    rows: list[Row] = []
    for name in options.only or NAMES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"benchmarks.bench_{name}").run(options.rounds)
    print(*(f"{key}: {value}" for key, value in environment().items()), sep="\n")
    print(table(rows))
    met = sum(row.met for row in rows)
    print(f"{met} of {len(rows)} targets met")
    if options.save:
        print(f"saved: {save(rows, part=bool(options.only))}")
    return 0 if met == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
