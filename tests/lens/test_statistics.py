"""The table of statistics: what is read, averaged, drawn and documented follows from its rows."""

import re
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from lens_interventions import plots
from lens_interventions.lens.figures.hover import hover_template
from lens_interventions.lens.lens_over import lens_over
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.lens.statistics import STATISTICS, Statistic, averaged, drawn
from lens_interventions.lens.trajectory import Trajectory
from tests.support.pages import ROOT
from tests.support.tiny import shared_bridge

OF_TOKENS = {"tokens", "next_tokens", "positions", "mask"}


def test_a_row_is_enough_for_what_follows_from_others(trajectory, monkeypatch):
    """As many lists as know statistics: reading, means, frames, curves."""
    row = Statistic(
        name="agrees_compare",
        kind="agrees",
        target="compare",
        title="Top guess is that of the other point",
        unit="share",
        averaged=True,
        held=False,
    )
    monkeypatch.setitem(STATISTICS, row.name, row)
    expected = (trajectory.compare_rank == 0) & trajectory.mask
    assert torch.equal(trajectory.statistic(row.name), expected)
    assert trajectory.to_dataframe()[row.name].sum() == expected.sum()
    aggregate = lens_over(shared_bridge("llama"), ["the fox"], compare_with=1, progress=False)
    read = logit_lens(shared_bridge("llama"), "the fox", compare_with=1)
    shares = (read.compare_rank == 0).double().mean((1, 2))
    np.testing.assert_allclose(aggregate.means(row.name), shares, atol=1e-9)
    assert row.name in set(aggregate.to_dataframe().statistic)
    figure = plots.plot_aggregate(aggregate, [row.name])
    assert row.title in {trace.name for trace in figure.data}
    assert figure.layout.yaxis.title.text == "share of positions"


def test_a_row_with_colours_has_a_figure(trajectory, monkeypatch):
    row = replace(
        STATISTICS["top1"], title="Another", hover="another", unit="nats", low=1.0, high=4.0
    )
    monkeypatch.setitem(STATISTICS, "top1", row)
    grid = trajectory.grid("top1")
    assert grid.title == "Another"
    assert "<br>another: %" in hover_template(grid)
    trace = trajectory.plot("top1").data[0]
    assert (trace.zmin, trace.zmax, trace.colorbar.title.text) == (1, 4, "nats")


def test_a_trajectory_has_a_field_for_every_row_that_it_holds(trajectory):
    held = {name for name, row in STATISTICS.items() if row.held}
    assert held == set(trajectory.tensors()) - OF_TOKENS
    assert held < {field.name for field in fields(Trajectory)}
    assert all(trajectory.statistic(name) is not None for name in STATISTICS)


def test_what_is_asked_for_says_so(ended):
    for name, row in STATISTICS.items():
        asked = row.target == "watched" or row.kind in ("kl_reverse", "js")
        if asked:
            option = re.search(r"with (\w+)=", row.how_to_ask)[1]
            with pytest.raises(ValueError, match=rf"{name} was not computed.*{option}="):
                ended.statistic(name)
        else:
            ended.statistic(name)


@pytest.mark.parametrize("name", STATISTICS)
def test_what_there_is_none_of_is_as_the_table_says(trajectory, ended, name):
    row = STATISTICS[name]
    missing = trajectory.statistic(name)[:, ~trajectory.mask]
    assert missing.numel()
    assert np.array_equal(missing, np.full(missing.shape, row.missing), equal_nan=True)
    if row.target == "next":
        last = ended.statistic(name)[:, ended.next_tokens < 0]
        assert np.array_equal(last, np.full(last.shape, row.missing), equal_nan=True)


def test_the_cells_say_every_statistic_but_those_that_stand_on_anothers_line(trajectory):
    labels = [line.label for line in trajectory.grid("top1").lines]
    assert len(labels) == len(set(labels))
    of_names = {"compare": "1", "token": "·say"}
    for row in drawn().values():
        if row.kind != "log_prob" and row.name != "log_normalizer":
            assert row.hover.format(**of_names) in labels
    assert [line.label for line in trajectory.grid("log_normalizer").lines] == [
        *labels,
        STATISTICS["log_normalizer"].title,
    ]


def test_a_mean_is_of_statistics_that_are_always_computed():
    assert not {row.kind for row in averaged().values()} & {"kl_reverse", "js"}
    assert not {row.target for row in averaged().values()} & {"watched", "compare"}
    assert {"log10_final_rank", "kl_input", "agrees_next"} <= set(averaged())


def test_the_docs_have_the_table():
    page = (ROOT / "docs" / "concepts" / "statistics.md").read_text()
    table = page.split("|---|---|---|\n")[1].split("\n\n")[0]
    documented = []
    for line in table.splitlines():
        names, _, units = (cell.strip() for cell in line.strip("|").split("|"))
        rows = [STATISTICS[name] for name in re.findall(r"`(\w+)`", names)]
        assert set(units.split(", ")) == {row.unit for row in rows}, line
        documented += [row.name for row in rows]
    assert sorted(documented) == sorted(STATISTICS)
    means = [name for name in averaged() if name.startswith("log10_")]
    assert all(f"`{name}`" in page for name in means)
