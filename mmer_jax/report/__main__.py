"""python -m mmer_jax.report WORKDIR… --out=DIR

Merges the results of one or several runs into DIR/report.md, DIR/report.html and DIR/figures.
"""

import sys
from pathlib import Path

from mmer_jax import cli, mirror
from mmer_jax.report import write_report


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = cli.Parser(
        prog="python -m mmer_jax.report",
        description="Merge the results of runs into report.md, report.html and figures.",
    )
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", help="of mmer_jax.main")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the report goes")
    given = parser.parse_args(arguments)

    def command() -> None:
        workdirs = [mirror.folder(workdir) for workdir in given.workdirs]
        path = write_report(Path(given.out).expanduser(), workdirs)
        for place in (path, path.with_suffix(".html"), path.with_name("figures")):
            print(f"report       {place}")

    return cli.exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
