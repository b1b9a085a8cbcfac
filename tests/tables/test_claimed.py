"""Which cells the paper's claims name, and what the files of those cells are called."""

import pytest

from sppnet_cli.tables.claimed import cell_name, claimed_cells
from sppnet_cli.tables.paper import claims, published


@pytest.mark.parametrize(
    "claim_id", [name for name in claims().index if name not in ("T8.1", "T9.2", "T9.3")]
)
def test_the_cells_of_a_claim_hold_the_numbers_that_it_quotes(claim_id):
    claim = claims().loc[claim_id]
    table = published(claim["table"])
    for side in ("better", "worse"):
        cells = claimed_cells(claim["table"], claim[side])
        assert max(table.loc[row, column] for row, column in cells) == claim[f"paper_{side}"]


def test_cells_of_claims():
    assert claimed_cells(1, "e2") == (("e2", "top1_error"),)
    assert claimed_cells(2, "SPP-net6 multi 1 full") == (
        (("SPP-net6, multi-size trained", "1 full"), "top1_error"),
    )
    assert claimed_cells(3, "plain_crop224 pool5") == (("pool5 (6x6)", "plain_crop224"),)
    assert claimed_cells(4, "spp_full224 SPP pool5") == (("SPP pool5", "spp_full224"),)
    assert claimed_cells(6, "5-scale ftfc7 bb") == (("ftfc7 bb", "spp_5scale"),)
    assert claimed_cells(6, "R-CNN conv time") == (("conv time (s)", "rcnn"),)
    assert claimed_cells(8, "SPP ftfc7 bb") == (("SPP ftfc7 bb", "mAP"),)
    assert claimed_cells(9, "max(SPP-net (1); SPP-net (2))") == (
        ("SPP-net (1)", "mAP"),
        ("SPP-net (2)", "mAP"),
    )
    assert claimed_cells(9, "their combination") == (("control combination", "mAP"),)


def test_the_row_that_the_paper_misprints():
    row = ("SPP-net4, single-size trained", "1 crop")
    assert claimed_cells(2, "SPP-net6 single 1 crop") == ((row, "top1_error"),)
    assert claimed_cells(2, "SPP-net6 single 1 full")[0][0] == ("SPP-net6, single-size trained", "1 full")


def test_names_of_cells_in_files():
    assert cell_name("pool5 (6x6)", "spp_full224") == "pool5-6x6.spp_full224"
    assert cell_name(("SPP-net6, multi-size trained", "1 full"), "top1_error") == (
        "spp-net6-multi-size-trained.1-full.top1_error"
    )
    assert cell_name((5, "ftfc7 bb"), "mAP") == "5.ftfc7-bb.map"


@pytest.mark.parametrize("number", range(1, 10))
def test_every_cell_of_a_table_has_a_name_of_its_own(number):
    table = published(number)
    names = [cell_name(row, column) for row in table.index for column in table.columns]
    assert len(set(names)) == table.size
    assert all(name.replace("-", "").replace("_", "").replace(".", "").isalnum() for name in names)
