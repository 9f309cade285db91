"""python -m mmer_jax.report WORKDIR… --out=DIR

Merges the results of one or several runs into DIR/report.md, DIR/report.html and DIR/figures.
"""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from mmer_jax.errors import UserError
from mmer_jax.report import write_report


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see python -m mmer_jax.report --help\n")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = Parser(
        prog="python -m mmer_jax.report",
        description="Merge the results of runs into report.md, report.html and figures.",
    )
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", help="of mmer_jax.main")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the report goes")
    given = parser.parse_args(arguments)
    workdirs = [Path(workdir).expanduser() for workdir in given.workdirs]
    try:
        path = write_report(Path(given.out).expanduser(), workdirs)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for place in (path, path.with_suffix(".html"), path.with_name("figures")):
        print(f"report       {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
