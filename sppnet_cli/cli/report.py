"""`sppnet report`."""

from pathlib import Path

import click

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, json_option, option, quiet_option, say
from sppnet_cli.errors import UsageError


@click.command("report", short_help="Show results, or one run, on a page.")
@click.argument("run", metavar="[RUN]", required=False, type=PATH)
@option(
    "--profile",
    type=click.Choice(["mini", "pretrained", "paper", "tiny"]),
    default="mini",
    help="Of the results that are shown.",
)
@option("--results", type=PATH, default=Path("results"), help="Folder for the tables.")
@option("--out", type=PATH, help="The page.  [default: report.html in the folder that it shows]")
@json_option
@quiet_option
def command(
    *, run: Path | None, profile: str, results: Path, out: Path | None, as_json: bool, quiet: bool
) -> None:
    """Write one page, report.html, with all that `sppnet reproduce` measured, or about one RUN.

    RUN is a run directory: detections, a detector such as `sppnet train` makes, or a network.  The page is one file that
    needs no network and no script.

    \b
      sppnet report
      sppnet report my-detector
    """
    from sppnet_cli.report.page import write_results_page, write_run_page

    console.configure(quiet=quiet, json=as_json)
    if out is not None and out.is_dir():
        raise UsageError(f"--out {out}: is a folder; name the file, such as {out}/report.html")
    page = write_run_page(run, out) if run is not None else write_results_page(results / profile, out)
    say(as_json, {"report": page, "bytes": page.stat().st_size}, f"{page}: open it in a browser")
