"""The tables of the pages are what was measured on the pretrained models."""

import json
import re

import pytest

from lens_interventions.experiments import load_result
from lens_interventions.experiments.design.conditions import NO_PATCH, Arm
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.design.contrasts import contrasts as contrasts_of
from lens_interventions.experiments.design.sequences import REPORT
from lens_interventions.experiments.design.totals import Measure, totals_of
from lens_interventions.measures.intervals import Interval, holm
from lens_interventions.measures.verdicts import JOINT, joint_verdict
from tests.support.pages import ROOT
from tests.support.todays_rule import half_width_by_todays_rule
from tests.support.told import INTERVAL, in_short

ENDS = ["estimate", "low", "high"]
MODELS = ("smollm2-135m-instruct", "gemma-3-270m")


@pytest.mark.parametrize(
    ("page", "run", "head"),
    [
        ("pretrained", "smollm2-135m-instruct/copying", "question"),
        ("pretrained", "copying-late", "at late layers"),
        ("trained", "smollm2-135m-instruct/learned", "of learned writes"),
        ("pretrained", "smollm2-135m-instruct/loops", "on loops"),
        ("second-model", "gemma-3-270m/copying", "question"),
        ("second-model", "gemma-3-270m/loops", "on loops"),
        ("second-model", "gemma-3-270m/learned", "of learned writes"),
    ],
)
def test_the_verdicts_on_the_patch_are_the_committed_results(page, run, head):
    """Each question against no patch, against all references, the bound if any, the verdict.

    Copying has also the difference from all references but the temperature.
    """
    result = load_result(ROOT / "results" / run)
    contrasts, bounds = result.tables["contrasts"], result.tables.get("bounds")
    writes = result.tables.get("writes")
    true = contrasts[contrasts["source"] == "true"]
    expected = []
    for finding, (question, rows) in zip(
        result.verdicts, true.groupby("question", sort=False), strict=True
    ):
        if "measure" in rows:
            rows = rows[rows["measure"] == rows["measure"].iloc[0]]
        of_measure = rows.set_index("minus")
        intervals = [of_measure.loc[minus, ENDS] for minus in ("none", JOINT)]
        if writes is not None:
            intervals.append(writes.set_index("question").loc[question, ENDS])
        expected.append(
            (
                *[tuple(f"{value:+.3f}" for value in interval) for interval in intervals],
                *(
                    ()
                    if bounds is None
                    else [f"{bounds.set_index('question').bound[question]:.2f}"]
                ),
                in_short(finding.verdict),
            )
        )
    pattern = rf"^\| {head} \| true − no .*\n\|[-|]+\n((?:\|.*\n)+)"
    (table,) = re.findall(pattern, (ROOT / f"docs/findings/{page}.md").read_text(), re.MULTILINE)
    found = []
    for row in table.replace("−", "-").splitlines():
        intervals = INTERVAL.findall(row)
        *bound, verdict = (cell.strip() for cell in row.split("|")[2 + len(intervals) : -1])
        found.append((*intervals, *bound, verdict))
    assert found == expected


@pytest.mark.parametrize(
    ("run", "changed"),
    [
        ("smollm2-135m-instruct/copying", {}),
        ("copying-late", {"repeats": "helps a little"}),
        ("gemma-3-270m/copying", {"copyable": "undecided"}),
    ],
)
def test_without_the_temperature_the_verdicts_are_those_that_the_pages_tell(run, changed):
    result = load_result(ROOT / "results" / run)
    contrasts, writes = result.tables["contrasts"], result.tables["writes"]
    unpatched = contrasts[(contrasts["source"] == "true") & (contrasts["minus"] == "none")]
    unpatched = unpatched.drop_duplicates("question").set_index("question").loc[writes["question"]]
    found = {}
    for joint, alone, p_alone, finding in zip(
        writes.itertuples(),
        unpatched.itertuples(),
        holm(unpatched["p_value"].to_numpy()),
        result.verdicts,
        strict=True,
    ):
        verdict = joint_verdict(
            *(Interval(r.estimate, r.low, r.high, r.level, r.method, r.n) for r in (joint, alone)),
            smallest_effect=finding.verdict.smallest_effect,
            lower_is_better=joint.lower_is_better,
            p_joint=joint.p_holm,
            p_unpatched=float(p_alone),
        )
        if verdict.outcome != finding.verdict.outcome:
            found[joint.question] = verdict.outcome
    assert found == changed


@pytest.mark.parametrize(
    ("page", "table", "temperature", "tag"),
    [
        ("pretrained", "text", 0.72, "other"),
        ("pretrained", "repeats", 0.945, "repeat-none"),
        ("second-model", "text", 0.63, "other"),
    ],
)
def test_what_a_temperature_costs_the_other_tokens_is_the_committed_result(
    page, table, temperature, tag
):
    model = MODELS[page == "second-model"]
    rows = load_result(ROOT / "results" / model / "copying").tables["rows"]
    totals = totals_of(rows[rows["table"] == table], Measure("loss", frozenset({tag})), REPORT)
    (cost,) = contrasts_of(totals, [(Arm.tempered(temperature), NO_PATCH)], Resampling())
    i = cost.interval
    section = (ROOT / f"docs/findings/{page}.md").read_text()
    told = f"{i.estimate:.3f} [{i.low:.3f}, {i.high:.3f}]"
    assert told in section


def test_the_correlations_are_the_committed_results():
    """Of the second model's page, a row for each verdict; of the findings, the first two."""

    def rounded(model):
        path = ROOT / f"results/{model}/preservation/result.json"
        found = [v["verdict"]["interval"] for v in json.loads(path.read_text())["verdicts"]]
        return [tuple(f"{i[name]:+.2f}" for name in ("estimate", "low", "high")) for i in found]

    default, second = rounded("smollm2-135m-instruct"), rounded("gemma-3-270m")
    page = (ROOT / "docs/findings/second-model.md").read_text().replace("−", "-")
    table = re.findall(r"^\| question \| SmolLM2.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    rows = [INTERVAL.findall(row) for row in table[0].splitlines()]
    assert rows == [list(pair) for pair in zip(default, second, strict=True)]
    findings = (ROOT / "docs/findings/pretrained.md").read_text()
    sentences = findings.partition("Unlike in the post")[2].replace("−", "-")
    assert INTERVAL.findall(sentences)[:2] == default[:2]


def intervals_of(run):
    """The intervals of all verdicts of a run, as pages tell them."""
    intervals = [
        finding.verdict.interval for finding in load_result(ROOT / "results" / run).verdicts
    ]
    return [tuple(f"{e:+.3f}" for e in (i.estimate, i.low, i.high)) for i in intervals]


@pytest.mark.parametrize(
    "run",
    [
        "…/increment",
        "increment-longer",
        "increment-rank-8",
        "increment-centred",
        "increment-penalties",
        "increment-smaller-penalties",
        "…/reader",
        "reader-mlp",
    ],
)
def test_the_answers_to_questions_are_the_committed_results(run):
    """The interval of each verdict stands in the row that links the run."""
    page = (ROOT / "docs/questions.md").read_text().replace("−", "-")
    (row,) = (line for line in page.splitlines() if f"`results/{run}`" in line)
    assert INTERVAL.findall(row) == intervals_of(run.replace("…", "smollm2-135m-instruct"))


@pytest.mark.parametrize("run", ["last_word", "likeliest", "recall", "unlikely"])
def test_the_answers_to_comments_are_the_committed_results(run):
    """The interval of each verdict stands in its section; the short answers quote some of them."""
    pages = {name: (ROOT / f"docs/{name}.md").read_text().replace("−", "-") for name in PAGES}
    sections = pages["comments"].split("\n## ")
    (section,) = (each for each in sections if f"`results/…/{run}`" in each)
    expected = intervals_of(f"smollm2-135m-instruct/{run}")
    assert INTERVAL.findall(" ".join(section.split())) == expected
    anchor = section.partition("\n")[0].lower().replace(",", "").replace(" ", "-")
    (row,) = (line for line in pages["questions"].splitlines() if f"comments.md#{anchor}" in line)
    quoted = INTERVAL.findall(row)
    assert quoted
    assert set(quoted) <= set(expected)


PAGES = ("comments", "questions")


@pytest.mark.parametrize(
    ("heading", "run"),
    [
        ("## Unlikely tokens", "unlikely"),
        ("## The input, recalled", "recall"),
        ("## The likeliest continuation", "likeliest"),
    ],
)
def test_the_answers_on_both_models_are_the_committed_results(heading, run):
    """A row for each verdict, with the interval of each model."""
    page = (ROOT / "docs/findings/second-model.md").read_text().replace("−", "-")
    section = page.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    rows = [INTERVAL.findall(line) for line in section.splitlines() if line.startswith("| ")][1:]
    results = [load_result(ROOT / "results" / model / run).verdicts for model in MODELS]
    intervals = [
        [finding.verdict.interval for finding in pair] for pair in zip(*results, strict=True)
    ]
    assert rows == [
        [tuple(f"{e:+.3f}" for e in (i.estimate, i.low, i.high)) for i in pair]
        for pair in intervals
    ]


def test_the_answers_on_upbringings_are_the_committed_result():
    """The intervals of all verdicts stand in the rows that link the run, the means in a table.

    One verdict is another by today's rule for few seeds, so its interval is told by that rule.
    """
    result = load_result(ROOT / "results/upbringing")
    page = (ROOT / "docs/questions.md").read_text().replace("−", "-")
    rows = "".join(line for line in page.splitlines() if "`results/upbringing`" in line)
    expected = intervals_of("upbringing")
    contrasts = result.tables["contrasts"].query("measure == 'loss' and point == 'final_post'")
    myopia = contrasts.set_index(["scope", "arm", "minus"]).loc[("all", "myopic", "plain")]
    stored, half = expected[2], half_width_by_todays_rule(myopia)
    ends = (myopia.estimate, myopia.estimate - half, myopia.estimate + half)
    expected[2] = tuple(f"{end:+.3f}" for end in ends)
    assert INTERVAL.findall(rows) == expected
    layers = result.tables["layers"]
    means = layers.set_index(["arm", "measure", "scope", "point"])["mean"]
    findings = (ROOT / "docs/findings/from-scratch.md").read_text()
    for ends in (expected[2][1:], stored[1:]):
        assert "[{}, {}]".format(*ends) in findings.replace("−", "-")
    section = findings.partition("## How a network is brought up")[2].partition("\n## ")[0]
    table = [row for row in section.splitlines() if row[:2] == "| "][1:]
    assert table == [
        f"| {arm} | " + " | ".join(f"{means[(arm, *place)]:.3f}" for place in SHOWN) + " |"
        for arm in dict.fromkeys(layers["arm"])
    ]


SHOWN = [
    ("loss", "all", "final_post"),
    ("loss", "copyable", "final_post"),
    ("loss", "all", "2_pre"),
    ("kl", "all", "2_pre"),
    ("recovered", "all", "2_pre"),
    ("recovered", "all", "final_post"),
]


SMOLLM2, GEMMA = "smollm2-135m-instruct/", "gemma-3-270m/"
READER, INCREMENT = "## A reader that adapts", "## An increment on a base"
LONGER_INCREMENT = "## An increment trained for longer"
SMALLER_INCREMENT = "## An increment of rank 8"
CENTRED_INCREMENT = "## An increment with centred embeddings"
PENALISED_INCREMENT = "## An increment with penalties"
LESS_PENALISED_INCREMENT = "## An increment with smaller penalties"
MLP_READER = "## A reader whose MLPs adapt too"


@pytest.mark.parametrize(
    ("run", "page", "heading", "condition", "alone"),
    [
        (SMOLLM2 + "reader", "trained", READER, ("condition", "as trained"), "zero"),
        ("reader-mlp", "trained", MLP_READER, ("condition", "as trained"), "zero"),
        (GEMMA + "reader", "second-model", READER, ("condition", "as trained"), "zero"),
        (SMOLLM2 + "increment", "trained", INCREMENT, ("source", "true"), "base"),
        ("increment-longer", "trained", LONGER_INCREMENT, ("source", "true"), "base"),
        ("increment-rank-8", "trained", SMALLER_INCREMENT, ("source", "true"), "base"),
        ("increment-centred", "trained", CENTRED_INCREMENT, ("source", "true"), "base"),
        ("increment-penalties", "trained", PENALISED_INCREMENT, ("source", "true"), "base"),
        (
            "increment-smaller-penalties",
            "trained",
            LESS_PENALISED_INCREMENT,
            ("source", "true"),
            "base",
        ),
        (GEMMA + "increment", "second-model", INCREMENT, ("source", "true"), "base"),
    ],
)
def test_the_findings_on_trainings_are_the_committed_results(run, page, heading, condition, alone):
    """A row for each kind of text: against all the others, and without the write or increment."""
    result = load_result(ROOT / "results" / run)
    table = result.tables["contrasts"]
    column, value = condition
    chosen = table[table[column] == value].set_index(["scope", "minus"])
    expected = [
        [tuple(f"{end:+.3f}" for end in chosen.loc[(scope, minus), ENDS]) for minus in pair]
        for scope in ("copyable", "other", "all", "second copies")
        for pair in [(JOINT, alone)]
    ]
    findings = (ROOT / f"docs/findings/{page}.md").read_text().replace("−", "-")
    rows = findings.partition(heading)[2].partition("\n## ")[0].splitlines()
    told = [row for row in rows if row[:1] == "|" and INTERVAL.search(row)]
    assert [INTERVAL.findall(row) for row in told] == expected
    verdicts = [in_short(finding.verdict) for finding in result.verdicts]
    assert [row.split("|")[-2].strip() for row in told] == verdicts


SIGNED, PLAIN = "{:.3f} [{:+.3f}, {:+.3f}]", "{:.3f} [{:.3f}, {:.3f}]"


@pytest.mark.parametrize(
    ("page", "model"),
    [("pretrained", "smollm2-135m-instruct"), ("second-model", "gemma-3-270m")],
)
@pytest.mark.parametrize(
    ("question", "materials", "sign", "form"),
    [
        ("a write of the true token of strength 0.03", ("reference", "prose"), 1, SIGNED),
        ("that promises most", ("reference", "prose"), 1, PLAIN),
        ("one position early", ("natural text", "copies"), 1, SIGNED),
        ("any kind of head", ("natural text",), 1, SIGNED),
        ("any kind of head", ("copies",), -1, PLAIN),
        ("a linear write of the true token", ("reference", "prose"), -1, PLAIN),
    ],
)
def test_the_findings_to_first_order_are_the_committed_results(
    page, model, question, materials, sign, form
):
    result = load_result(ROOT / "results" / model / "slopes")
    section = (ROOT / f"docs/findings/{page}.md").read_text().partition("## To first order")[2]
    section = " ".join(section.partition("\n## ")[0].replace("−", "-").split())
    for material in materials:
        (interval,) = (
            found.verdict.interval
            for found in result.verdicts
            if question in found.question and material in found.question
        )
        ends = sorted((sign * interval.low, sign * interval.high))
        told = form.format(sign * interval.estimate, *ends)
        assert told in section.replace(" nats [", " ["), (question, material)


def test_slopes_with_and_without_the_mean_embedding_are_the_committed_results():
    columns, others, shuffled = [], [], []
    for run in ("smollm2-135m-instruct/slopes", "slopes-centred"):
        result = load_result(ROOT / "results" / run)
        cells = [
            found.verdict.interval
            for found in result.verdicts
            if "of strength 0.03" in found.question
        ]
        all_slopes = result.tables["slopes"].query("material == 'copies' and mode == 'add'")
        all_slopes = all_slopes[all_slopes["minus"] == ""]
        slopes = all_slopes[all_slopes["source"] == "true"].set_index("layer")
        measured = result.tables["patched"].query("material == 'copies' and layer == 26")
        measured = measured[measured["minus"] == "no patch"]
        patched = measured[measured["source"] == "true"]
        columns.append(
            [
                *(f"{c.estimate:+.3f} [{c.low:+.3f}, {c.high:+.3f}]" for c in cells),
                *("{:+.2f} [{:+.2f}, {:+.2f}]".format(*slopes.loc[n, ENDS]) for n in (18, 19)),
                "{:+.3f} [{:+.3f}, {:+.3f}]".format(*patched[ENDS].iloc[0]),
            ]
        )
        others.append(measured.set_index("source").loc[["current", "shuffled"], "estimate"])
        shuffled.append(all_slopes.set_index(["source", "layer"]).loc[("shuffled", 18), "estimate"])
    for page in ("results/slopes-centred/README.md", "docs/findings/pretrained.md"):
        text = (ROOT / page).read_text().replace("−", "-")
        for told in zip(*columns, strict=True):
            assert f"| {told[0]} | {told[1]} |" in text, page
    text = " ".join(text.split())
    assert "from {:.2f} to {:+.2f}".format(*shuffled) in text
    for source in ("current", "shuffled"):
        assert "({:.3f} to {:.3f})".format(*(each[source] for each in others)) in text


def test_a_centred_embedding_at_one_layer_is_the_committed_result():
    contrasts = load_result(ROOT / "results/copying-centred").tables["contrasts"]
    copies = contrasts.query("question == 'induction' and measure == 'loss' and source == 'true'")
    told = {
        minus: "{:+.3f} [{:+.3f}, {:+.3f}]".format(*ends)
        for minus, *ends in copies[["minus", *ENDS]].itertuples(index=False)
    }
    text = (ROOT / "results/copying-centred/README.md").read_text().replace("−", "-")
    rows = re.findall(r"^\| (?:no|a|the) .* \| (.*) \|$", text, re.MULTILINE)
    named = ("none", "shuffled", "previous", "current", "guess", "back_patch", "temperature")
    assert rows == [told[minus] for minus in named]
    page = " ".join((ROOT / "docs/findings/pretrained.md").read_text().split())
    for minus in named[:-1]:
        estimate, *ends = copies.set_index("minus").loc[minus, ENDS].abs()
        assert "{:.3f} [{:.3f}, {:.3f}]".format(estimate, *sorted(ends)) in page, minus


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("increment-penalties", PENALISED_INCREMENT),
        ("increment-smaller-penalties", LESS_PENALISED_INCREMENT),
    ],
)
def test_the_price_of_increments_with_penalties_is_that_of_the_committed_results(name, heading):
    """On the texts that choose the step, at the end, compared with the base alone."""
    result = load_result(ROOT / "results" / name)
    options = result.settings["options"]
    losses = result.tables["curves"].pivot(index="source", columns="step", values="loss")
    told = result.tables["penalties"].pivot(
        index=["penalised", "source"], columns="step", values="mean"
    )
    run = (ROOT / "results" / name / "README.md").read_text().replace("−", "-")
    findings = (ROOT / "docs/findings/trained.md").read_text().replace("−", "-")
    section = findings.partition(heading)[2].partition("\n## ")[0]
    for source, token in (("true", "the next token"), ("shuffled", "a shuffled token")):
        loss, length, kl = (
            rows[200] - rows[0]
            for rows in (
                losses.loc[source],
                told.loc["write_length", source],
                told.loc["kl", source],
            )
        )
        penalties = options["write_penalty"] * length + options["change_penalty"] * kl
        row = f"| {token} | {loss:+.4f} | {length:+.3f} | {kl:+.4f} | {loss + penalties:+.4f} |"
        assert row in run
        assert f"{-loss:.4f}" in section
        assert f"{penalties:.4f}" in section
