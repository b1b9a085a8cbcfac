"""`sppnet report`, and the page that `sppnet reproduce` ends with."""

import json

import pytest

from sppnet_cli.errors import DataError


def test_without_tables_the_command_that_makes_one_is_named(sppnet):
    code, out, err = sppnet("report", "--profile", "tiny")
    assert (code, out) == (3, "")
    assert "results/tiny: no tables there; measure one first: sppnet reproduce table6 --profile tiny" in err


def test_a_folder_is_no_page(sppnet, tmp_path):
    code, _, err = sppnet("report", "--out", tmp_path)
    assert code == 2
    assert f"--out {tmp_path}: is a folder" in err


def test_what_is_no_run_is_refused(sppnet, tmp_path):
    code, _, err = sppnet("report", tmp_path)
    assert code == 3
    assert "not a complete run directory" in err


def test_the_page_of_a_run_is_written_into_it(sppnet, tmp_path):
    from sppnet_cli.building import make_run
    from sppnet_cli.runs import identity
    from sppnet_cli.stages.calibrate import CalibrateConfig
    from sppnet_cli.stages.workspace.base import CALIBRATION

    wanted = identity("anything", CalibrateConfig(CALIBRATION), {})
    make_run(tmp_path / "run", wanted, lambda folder: (folder / "file").touch())
    code, out, err = sppnet("report", "run", "--json")
    assert (code, err) == (0, "run/report.html: open it in a browser\n")
    page = tmp_path / "run" / "report.html"
    assert json.loads(out) == {"report": "run/report.html", "bytes": page.stat().st_size}
    assert "rules.slope_spread = 0.3" in page.read_text()
    make_run(tmp_path / "run", wanted, lambda _: pytest.fail("was made again"))  # the run is what it was


@pytest.mark.parametrize("fails", [False, True])
def test_reproduce_ends_by_writing_the_page(sppnet, tmp_path, monkeypatch, fails):
    def write(folder):
        if fails:
            raise DataError("table1.json: not a table")
        (folder / "report.html").touch()

    monkeypatch.setattr("sppnet_cli.report.page.write_results_page", write)
    (tmp_path / "results" / "tiny").mkdir(parents=True)
    code, _, err = sppnet("reproduce", "claims", "--profile", "tiny")
    assert (code, "report.html" in err) == (0, False)  # no table, no page
    (tmp_path / "results" / "tiny" / "corners.json").write_text("{}")
    code, _, err = sppnet("reproduce", "claims", "--profile", "tiny")
    assert code == 0
    said = "no page was written: table1.json: not a table" if fails else "results/tiny/report.html"
    assert said in err.splitlines()[-1]
