"""The gains that the pages tell are what was measured on networks from scratch."""

import importlib.util
import re

import pytest

from lens_interventions.experiments import load_result
from lens_interventions.experiments.design.contrasts import Resampling, row_interval, seed_contrast
from lens_interventions.experiments.design.rows_of_sums import rows_where
from lens_interventions.experiments.design.text_scopes import AS_TRAINED
from lens_interventions.experiments.scratch.decoding import LOOPED
from tests.support.pages import ROOT
from tests.support.todays_rule import half_width_by_todays_rule


@pytest.mark.parametrize(
    ("run", "verdict", "pages"),
    [
        ("scratch", 0, ("README.md", "docs/findings/from-scratch.md", "docs/questions.md")),
        ("scratch", 1, ("docs/findings/from-scratch.md",)),
        ("scratch", 2, ("docs/findings/from-scratch.md", "docs/questions.md")),
        ("scratch", 3, ("docs/findings/from-scratch.md",)),
        ("scratch-entry", 0, ("docs/findings/from-scratch.md", "docs/questions.md")),
        ("scratch-entry", 1, ("docs/findings/from-scratch.md",)),
        (
            "scratch-depth-longer",
            0,
            ("docs/findings/from-scratch.md", "docs/questions.md"),
        ),
        (
            "scratch-depth-longer",
            1,
            ("docs/findings/from-scratch.md", "docs/questions.md"),
        ),
        ("scratch-loops", 0, ("README.md", "docs/findings/from-scratch.md")),
        (
            "scratch-loops",
            1,
            ("README.md", "docs/findings/from-scratch.md", "docs/questions.md"),
        ),
        (
            "scratch-four-blocks-longer",
            0,
            ("README.md", "docs/findings/from-scratch.md", "docs/questions.md"),
        ),
        (
            "scratch-four-blocks-longer",
            1,
            ("docs/findings/from-scratch.md", "docs/questions.md"),
        ),
        (
            "scratch-six-blocks-twice",
            0,
            ("README.md", "docs/findings/from-scratch.md", "docs/questions.md"),
        ),
        ("scratch-six-blocks-twice", 1, ("docs/findings/from-scratch.md", "docs/questions.md")),
    ],
)
def test_the_gains_of_networks_from_scratch_are_the_committed_results(run, verdict, pages):
    gain = _gain(load_result(ROOT / "results" / run).verdicts[verdict].verdict.interval)
    for page in pages:
        assert gain in (ROOT / page).read_text().replace("−", "-"), page


def test_the_gains_after_more_steps_are_the_committed_results_by_todays_rule():
    """Over the best of two controls, by today's rule for few seeds; the stored ends stand beside.

    As in a joint verdict, the lower end is the smallest of both, and the upper end the smallest
    after each interval has been widened so that both hold at once.
    """
    result = load_result(ROOT / "results/scratch-longer")
    contrasts = result.tables["contrasts"].query("arm == 'true' and condition == 'as trained'")
    findings, questions, run = (
        (ROOT / page).read_text().replace("−", "-")
        for page in (
            "docs/findings/from-scratch.md",
            "docs/questions.md",
            "results/scratch-longer/README.md",
        )
    )
    gains = []
    for scope, finding in zip(("copyable", "all"), result.verdicts, strict=True):
        rows = [row for row in contrasts.itertuples() if row.scope == scope]
        assert [row.minus for row in rows] == ["none", "current"]
        lead = min(-row.estimate for row in rows)
        low = min(-row.estimate - half_width_by_todays_rule(row) for row in rows)
        high = min(-row.estimate + half_width_by_todays_rule(row, 0.025) for row in rows)
        gains.append(f"{lead:.2f} [{low:.2f}, {high:.2f}]")
        stored = finding.verdict.interval
        assert f"[{-stored.high:.2f}, {-stored.low:.2f}]" in findings
    assert all(gain in page for gain in gains for page in (findings, run))
    assert gains[0] in questions


def test_the_gains_at_depth_are_the_committed_results():
    runs = {
        name: _gains(name)
        for name in (
            "scratch-depth",
            "scratch-six-blocks",
            "scratch-eight-blocks",
            "scratch-depth-entry",
            "scratch-first-block",
            "scratch-second-block",
            "scratch-last-block",
            "scratch-last-of-six",
        )
    }
    tables = {f"results/{name}/README.md": rows for name, rows in runs.items()}
    tables["docs/findings/from-scratch.md"] = [row for rows in runs.values() for row in rows]
    for page, rows in tables.items():
        text = (ROOT / page).read_text().replace("−", "-")
        table = re.findall(r"^\| (\d / \d) \| (.*) \|$", text, re.MULTILINE)
        assert [cells.split(" | ") for _, cells in table] == rows, page
    _, two, four, six, eight, *places = tables["docs/findings/from-scratch.md"]
    questions = (ROOT / "docs/questions.md").read_text().replace("−", "-")
    assert all(row[-2] in questions for row in places)
    for page in ("README.md", "docs/questions.md"):
        text = (ROOT / page).read_text().replace("−", "-")
        assert all(row[-2] in text for row in (two, four, six, eight)), page


def test_the_loops_are_the_committed_results():
    """A row for each network: shares of the arms, and the true token against the others."""
    expected, controls = [], _scratch_controls()
    place = "the last of four blocks"
    for name in (
        "scratch-loops",
        "scratch-depth-longer",
        "scratch-four-blocks-longer",
        "scratch-first-block",
        "scratch-second-block",
        place,
        "scratch-last-block",
        "scratch-six-blocks-twice",
        "scratch-last-of-six-more",
        "scratch-last-of-six-twice",
    ):
        if name == place:
            rows = rows_where(controls.rows_of(controls.SIX_SEEDS[place]), scope=LOOPED)
            assert rows["seed"].nunique() == 6
            judged = controls.over_six_seeds(place)[-1].verdict
            assert judged.outcome == "undecided"
            true, none = (rows_where(rows, arm=arm) for arm in ("true", "none"))
            against_none = seed_contrast(true, none, Resampling()).interval
        else:
            result = load_result(ROOT / "results" / name)
            rows, contrasts = (
                rows_where(result.tables[table], scope=LOOPED) for table in ("rows", "contrasts")
            )
            judged = result.verdicts[-1].verdict
            against_none = row_interval(
                rows_where(contrasts, arm="true", minus="none").to_dict("records")[0]
            )
        sums = rows.groupby("arm")[["total", "count"]].sum()
        shares = sums["total"] / sums["count"]
        arms = [
            f"{shares[arm]:.0%}" if arm in shares else "–"
            for arm in ("none", "none-longer", "previous", "true")
        ]
        differences = [
            f"{each.estimate:+.2f} [{each.low:+.2f}, {each.high:+.2f}]"
            for each in (against_none, judged.interval)
        ]
        expected.append([*arms, *differences])
    text, readme, questions = (
        (ROOT / page).read_text().replace("−", "-")
        for page in ("docs/findings/from-scratch.md", "README.md", "docs/questions.md")
    )
    _, loops = text.split("## Loops")
    table = re.findall(r"^\| \d / \d, [^|]* steps[^|]* \| (.*) \|$", loops, re.MULTILINE)
    assert [cells.split(" | ") for cells in table] == expected
    # Others have no plus sign, and the last one is the verdict's.
    told = expected[0][-1].replace("+", "")
    assert told in readme
    assert told in questions


def test_the_comparisons_with_other_controls_are_the_committed_results():
    """A row for each network and control in the run's own page, and those that others quote."""
    compared = _scratch_controls()
    found = compared.contrasts().set_index(["run", "blocks", "scope", "arm", "minus"])
    for run, (controls, _) in compared.RUNS.items():
        page = (ROOT / f"results/{run}/README.md").read_text().replace("−", "-")
        rows = re.findall(r"^\| (\d) / \d \| (.*) \|$", page, re.MULTILINE)
        expected = []
        for number in found.loc[run].index.unique("blocks"):
            for control in controls:
                of_network = [
                    found.loc[(run, number, *column)]
                    for column in (
                        ("copyable", "true", control),
                        ("all", "true", control),
                        ("copyable", control, "none"),
                    )
                ]
                named = [control] if len(controls) > 1 else []
                cells = [
                    f"{each.estimate:+.2f} [{each.low:+.2f}, {each.high:+.2f}]"
                    for each in of_network
                ]
                expected.append((str(number), " | ".join([*named, *cells])))
        assert rows == expected, run
    one, two = (
        found.loc["scratch-previous", number, "copyable", "true", "previous"] for number in (1, 2)
    )
    behind = f"{one.estimate:.2f} [{one.low:.2f}, {one.high:.2f}]"
    for page in ("README.md", "docs/findings/from-scratch.md", "docs/questions.md"):
        assert {behind, _gain(two)} <= {
            found[0] for found in PLAIN_GAIN.finditer((ROOT / page).read_text())
        }


def test_the_losses_without_the_writes_are_the_committed_results():
    """On tokens that cannot be copied: a row for each network with both writes."""
    found = _scratch_controls().taken_away()
    compared = found["compared"].unique()
    told = {
        (each.network, each.compared): f"{each.estimate:+.2f} [{each.low:+.2f}, {each.high:+.2f}]"
        for each in found.itertuples()
    }
    expected = {
        network: [told.get((network, each), "–") for each in compared]
        for network in found["network"].unique()
    }
    text = (ROOT / "docs/findings/from-scratch.md").read_text().replace("−", "-")
    _, after = text.split("**Is it what the write says?**")
    table = re.findall(r"^\| (\d / \d, [^|]*) \| (.*) \|$", after.split("\n\n")[1], re.MULTILINE)
    assert {network: cells.split(" | ") for network, cells in table} == expected


@pytest.mark.parametrize(
    ("place", "run"),
    [
        ("the last of four blocks", "scratch-last-block-more"),
        ("the last of six blocks", "scratch-last-of-six-more"),
    ],
)
def test_six_seeds_in_several_runs_are_the_committed_results(place, run):
    """The verdicts over all of them, and the true token against each other arm."""
    page, findings = (
        (ROOT / name).read_text().replace("−", "-")
        for name in (f"results/{run}/README.md", "docs/findings/from-scratch.md")
    )
    controls = _scratch_controls()
    copyable, everything, *_ = (
        _gain(each.verdict.interval) for each in controls.over_six_seeds(place)
    )
    assert copyable in findings
    assert everything in findings
    rows = controls.rows_of(controls.SIX_SEEDS[place]).query(f"condition == '{AS_TRAINED}'")
    expected = []
    for scope, judged in (("copyable", copyable), ("all", everything)):
        arms = [rows_where(rows, arm=arm, scope=scope) for arm in ("true", *OTHERS)]
        assert arms[0]["seed"].nunique() == 6
        contrasts = [seed_contrast(arms[0], other, Resampling()) for other in arms[1:]]
        against = [_gain(each.interval) for each in contrasts]
        expected.append([*against, judged])
    table = re.findall(r"^\| (?:copyable|all) tokens \| (.*) \|$", page, re.MULTILINE)
    assert [cells.split(" | ") for cells in table] == expected


def test_the_last_of_six_blocks_after_twice_as_many_steps_is_the_committed_result():
    """The true token against each other arm, and the verdicts, as gains."""
    result = load_result(ROOT / "results/scratch-last-of-six-twice")
    contrasts = result.tables["contrasts"].query("arm == 'true' and condition == 'as trained'")
    readme, findings, questions, run = (
        (ROOT / page).read_text().replace("−", "-")
        for page in (
            "README.md",
            "docs/findings/from-scratch.md",
            "docs/questions.md",
            "results/scratch-last-of-six-twice/README.md",
        )
    )
    expected = []
    outcomes = [finding.verdict.outcome for finding in result.verdicts]
    assert outcomes == ["undecided"] * 3
    for scope, finding in zip(("copyable", "all"), result.verdicts[:2], strict=True):
        against = [
            _gain(row_interval(row))
            for row in contrasts[contrasts["scope"] == scope].to_dict("records")
        ]
        judged = _gain(finding.verdict.interval)
        pages = (findings, questions, readme) if scope == "copyable" else (findings, questions)
        assert all(judged in page for page in pages)
        expected.append([*against, judged])
    table = re.findall(r"^\| (?:copyable|all) tokens \| (.*) \|$", run, re.MULTILINE)
    assert [cells.split(" | ") for cells in table] == expected


def test_the_knockouts_are_the_committed_results():
    """Of all heads: in each run's own page, and in the one that tells of all."""
    findings, questions = (
        (ROOT / page).read_text().replace("−", "-")
        for page in ("docs/findings/from-scratch.md", "docs/questions.md")
    )
    told = []
    for run in (
        "scratch-knockouts",
        "scratch-knockouts-two",
        "scratch-knockouts-four",
        "scratch-last-of-six-twice",
    ):
        rises = load_result(ROOT / "results" / run).tables["knockouts"]
        rows = [
            [
                f"the {arm} token",
                path,
                *(
                    _rise(rows_where(rises, arm=arm, path=path, scope=scope))
                    for scope in ("copyable", "other", "second copies")
                ),
            ]
            for arm in ("true", "previous")
            for path in ("keys", "values")
        ]
        page = (ROOT / "results" / run / "README.md").read_text().replace("−", "-")
        table = re.findall(r"^\| (the (?:true|previous) token \| .*) \|$", page, re.MULTILINE)
        assert [cells.split(" | ") for cells in table] == rows
        assert all(row[2] in questions for row in rows[:2])
        told += rows
    table = re.findall(r"^\| \d blocks? \| (the .*) \|$", findings, re.MULTILINE)
    assert [cells.split(" | ") for cells in table] == told


def _rise(rows) -> str:
    (row,) = rows.itertuples()
    # A rise of less than half a hundredth is 0.00 or -0.00.
    return f"{row.estimate:.2f} [{row.low:.2f}, {row.high:.2f}]"


OTHERS = ("none", "none-longer", "previous")


def _scratch_controls():
    spec = importlib.util.spec_from_file_location("compared", ROOT / "docs/scratch_controls.py")
    compared = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compared)
    return compared


PLAIN_GAIN = re.compile(r"[\d.]+ \[[\d.]+, [\d.]+\]")


def _gains(run) -> list[list[str]]:
    """For each network the gains on copyable tokens on the way and at the end, and its verdicts."""
    result = load_result(ROOT / "results" / run)
    gains, contrasts = (
        result.tables[name].query("scope == 'copyable'") for name in ("gains", "contrasts")
    )
    at_the_end = rows_where(contrasts, arm="true", condition=AS_TRAINED, minus="none")
    judged = [_gain(found.verdict.interval) for found in result.verdicts]
    found = []
    for number, (blocks, of_network) in enumerate(gains.groupby("blocks")):
        *on_the_way, _ = map(_gain, of_network.itertuples())
        (end,) = map(_gain, rows_where(at_the_end, blocks=blocks).itertuples())
        found.append([*on_the_way, end, *judged[2 * number : 2 * number + 2]])
    return found


def _gain(of) -> str:
    """A change of the loss that is below 0 as a gain, with its interval."""
    return f"{-of.estimate:.2f} [{-of.high:.2f}, {-of.low:.2f}]"
