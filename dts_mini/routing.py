"""Measures routing without a task id and writes data/mini/routing.json: ``python -m dts_mini.routing``."""

import argparse
import sys
from pathlib import Path

from dts_mini.core.errors import DTSError
from dts_mini.core.file import check_writable, write_json
from dts_mini.suites.mini.suite import DATA, MiniSuite
from dts_mini.suites.routing import measure
from dts_mini.suites.tables import provenance

RESULTS = DATA / "routing.json"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measures routing without a task id and writes the results.")
    parser.add_argument("--zoo", type=Path, default=DATA, help="the folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        check_writable(options.out, overwrite=True)
        say = lambda step: print(f"  {step}", file=sys.stderr, flush=True)
        result = measure(MiniSuite(options.zoo), progress=say) | {"provenance": provenance()}
        write_json(result, options.out, overwrite=True)
    except DTSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report(result))
    return 0


def report(result: dict) -> str:
    """The rows as text, in %."""
    percent = lambda entry: f"{100 * entry['value']:5.1f} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]"
    lines = [f"{'':<42}{'routing':<22}{'end to end':<22}share of oracle"]
    for row in result["rows"]:
        routing = percent(row["routing"]) if "routing" in row else ""
        lines.append(f"{row['name']:<42}{routing:<22}{percent(row['end to end']):<22}{percent(row['share of oracle'])}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
