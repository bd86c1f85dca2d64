"""The README runs and its commands exist; the tables of the pages are what was measured."""

import importlib.util
import json
import re

import pytest

from lens_interventions.experiments import load_result
from lens_interventions.measures.verdicts import JOINT
from tests.support.pages import (
    ROOT,
    assert_command_exists,
    assert_pictures_are_there,
    blocks,
    commands,
)

README = (ROOT / "README.md").read_text()


def test_the_python_blocks_run(capsys):
    names = {}
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), names)
    assert "'final_post'" in capsys.readouterr().out
    assert names["log_probs"].shape == (2, 1, names["tokens"].shape[1] - 1)
    assert names["patched"].points == names["traj"].points


@pytest.mark.parametrize("line", commands([README]))
def test_the_commands_exist(line):
    assert_command_exists(line)


def test_the_pictures_are_there():
    assert_pictures_are_there(ROOT / "README.md")


QUESTIONS = {
    "loss on the second copy of random tokens": ("copying", 0),
    "log-prob of a rare word due again": ("copying", 1),
    "loss on copyable tokens of natural text": ("copying", 3),
    "loss right after a surprise": ("copying", 5),
    "loss on later repeats of a surprising token": ("copying", 6),
    "share of greedy samples that end in a loop": ("loops", 0),
    "log-odds that a repeated passage is said once more": ("loops", 2),
}
MODELS = ("smollm2-135m-instruct", "gemma-3-270m")


def test_the_table_of_the_readme_is_what_was_measured():
    """A row for each question: both models against all references, with the bound of the grid."""
    table = re.findall(r"^\| true token minus .*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[0].splitlines()]
    assert rows == [[name, *map(told, MODELS, [name] * 2)] for name in QUESTIONS]


def told(model, name):
    """A verdict with its interval and, for copying, what no cell of the grid gains more than."""
    run, number = QUESTIONS[name]
    result = load_result(ROOT / "results" / model / run)
    verdict = result.verdicts[number].verdict
    assert verdict.against == JOINT
    estimate, low, high = (
        f"{value:+.3f}".replace("-", "−")
        for value in (verdict.interval.estimate, verdict.interval.low, verdict.interval.high)
    )
    outcome = in_short(verdict)
    if "bounds" not in result.tables:
        return f"{estimate} [{low}, {high}], {outcome}"
    bound = result.tables["bounds"]["bound"][number]
    return f"{estimate} [{low}, {high}], {outcome}; no cell gains more than {bound:.2f}"


def in_short(verdict):
    """Beside a difference from no patch "no effect" would read as if the patch did nothing."""
    no_lead = f"no lead above {verdict.smallest_effect:g}"
    if verdict.outcome == "undecided" and "no lead" in verdict.words:
        return f"{no_lead}, harm undecided"
    return verdict.outcome.replace("no effect", no_lead)


INTERVAL = re.compile(r"([-+.\de]+) \[([-+.\de]+), ([-+.\de]+)\]")


@pytest.mark.parametrize(
    ("page", "run", "head"),
    [
        ("findings", "smollm2-135m-instruct/copying", "question"),
        ("findings", "copying-late", "at late layers"),
        ("findings", "smollm2-135m-instruct/learned", "of learned writes"),
        ("findings", "smollm2-135m-instruct/loops", "on loops"),
        ("second-model", "gemma-3-270m/copying", "question"),
        ("second-model", "gemma-3-270m/loops", "on loops"),
        ("second-model", "gemma-3-270m/learned", "of learned writes"),
    ],
)
def test_the_verdicts_on_the_patch_are_the_committed_results(page, run, head):
    """Each question against no patch, against all references, the bound if any, the verdict."""
    result = load_result(ROOT / "results" / run)
    contrasts, bounds = result.tables["contrasts"], result.tables.get("bounds")
    true = contrasts[contrasts["source"] == "true"]
    expected = []
    for finding, (question, rows) in zip(
        result.verdicts, true.groupby("question", sort=False), strict=True
    ):
        if "measure" in rows:
            rows = rows[rows["measure"] == rows["measure"].iloc[0]]
        of_measure = rows.set_index("minus")
        intervals = of_measure.loc[["none", JOINT], ["estimate", "low", "high"]].to_numpy()
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
    (table,) = re.findall(pattern, (ROOT / f"docs/{page}.md").read_text(), re.MULTILINE)
    found = []
    for row in table.replace("−", "-").splitlines():
        *bound, verdict = (cell.strip() for cell in row.strip("|").split("|")[3:])
        found.append((*INTERVAL.findall(row), *bound, verdict))
    assert found == expected


def test_the_correlations_are_the_committed_results():
    """Of the second model's page, a row for each verdict; of the findings, the first two."""

    def rounded(model):
        path = ROOT / f"results/{model}/preservation/result.json"
        found = [v["verdict"]["interval"] for v in json.loads(path.read_text())["verdicts"]]
        return [tuple(f"{i[name]:+.2f}" for name in ("estimate", "low", "high")) for i in found]

    default, second = rounded("smollm2-135m-instruct"), rounded("gemma-3-270m")
    page = (ROOT / "docs/second-model.md").read_text().replace("−", "-")
    table = re.findall(r"^\| question \| SmolLM2.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    rows = [INTERVAL.findall(row) for row in table[0].splitlines()]
    assert rows == [list(pair) for pair in zip(default, second, strict=True)]
    findings = (ROOT / "docs/findings.md").read_text()
    sentences = findings.partition("Unlike in the post")[2].replace("−", "-")
    assert INTERVAL.findall(sentences)[:2] == default[:2]


@pytest.mark.parametrize(
    ("run", "verdict", "pages"),
    [
        ("scratch", 0, ("README.md", "docs/findings.md", "docs/questions.md")),
        ("scratch", 1, ("docs/findings.md",)),
        ("scratch", 2, ("docs/findings.md", "docs/questions.md")),
        ("scratch", 3, ("docs/findings.md",)),
        ("scratch-entry", 0, ("docs/findings.md", "docs/questions.md")),
        ("scratch-entry", 1, ("docs/findings.md",)),
        ("scratch-longer", 0, ("docs/findings.md", "docs/questions.md")),
    ],
)
def test_the_gains_of_networks_from_scratch_are_the_committed_results(run, verdict, pages):
    gain = _gain(load_result(ROOT / "results" / run).verdicts[verdict].verdict.interval)
    for page in pages:
        assert gain in (ROOT / page).read_text(), page


def test_the_gains_at_depth_are_the_committed_results():
    runs = {
        name: _gains(name)
        for name in (
            "scratch-depth",
            "scratch-six-blocks",
            "scratch-eight-blocks",
            "scratch-depth-entry",
        )
    }
    tables = {f"results/{name}/README.md": rows for name, rows in runs.items()}
    tables["docs/findings.md"] = [row for rows in runs.values() for row in rows]
    for page, rows in tables.items():
        text = (ROOT / page).read_text().replace("−", "-")
        table = re.findall(r"^\| (\d / \d) \| (.*) \|$", text, re.MULTILINE)
        assert [cells.split(" | ") for _, cells in table] == rows, page
    _, two, four, six, eight, first = tables["docs/findings.md"]
    assert first[-2] in (ROOT / "docs/questions.md").read_text().replace("−", "-")
    for page in ("README.md", "docs/questions.md"):
        text = (ROOT / page).read_text().replace("−", "-")
        assert all(row[-2] in text for row in (two, four, six, eight)), page


def test_the_comparisons_with_the_previous_token_are_the_committed_results():
    """A row for each network in the run's own page, and those that the other pages quote."""
    spec = importlib.util.spec_from_file_location("compared", ROOT / "docs/previous_token.py")
    compared = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compared)
    found = compared.contrasts().set_index(["run", "blocks", "scope", "arm"])
    columns = [("copyable", "true"), ("all", "true"), ("copyable", "previous")]
    for run, name in compared.RUNS.items():
        page = (ROOT / f"results/{name}/README.md").read_text().replace("−", "-")
        rows = re.findall(r"^\| (\d) / \d \| (.*) \|$", page, re.MULTILINE)
        assert [int(number) for number, _ in rows] == list(found.loc[run].index.unique("blocks"))
        for number, cells in rows:
            of_network = [found.loc[(run, int(number), *column)] for column in columns]
            assert cells.split(" | ") == [
                f"{each.estimate:+.2f} [{each.low:+.2f}, {each.high:+.2f}]" for each in of_network
            ]
    one, two = (found.loc["scratch", number, "copyable", "true"] for number in (1, 2))
    behind = f"{one.estimate:.2f} [{one.low:.2f}, {one.high:.2f}]"
    for page in ("README.md", "docs/findings.md", "docs/questions.md"):
        assert {behind, _gain(two)} <= {
            found[0] for found in PLAIN_GAIN.finditer((ROOT / page).read_text())
        }


PLAIN_GAIN = re.compile(r"[\d.]+ \[[\d.]+, [\d.]+\]")


def _gains(run) -> list[list[str]]:
    """For each network the gains on copyable tokens on the way, and both of its verdicts."""
    result = load_result(ROOT / "results" / run)
    on_the_way = result.tables["gains"].query("scope == 'copyable'").groupby("blocks")
    judged = [_gain(found.verdict.interval) for found in result.verdicts]
    return [
        [*map(_gain, of_network.itertuples()), *judged[2 * number : 2 * number + 2]]
        for number, (_, of_network) in enumerate(on_the_way)
    ]


def _gain(of) -> str:
    """A change of the loss that is below 0 as a gain, with its interval."""
    return f"{-of.estimate:.2f} [{-of.high:.2f}, {-of.low:.2f}]"


@pytest.mark.parametrize(
    "run",
    [
        *(f"…/{name}" for name in ("increment", "last_word", "likeliest", "reader")),
        *("…/recall", "…/unlikely", "reader-mlp"),
    ],
)
def test_the_answers_to_questions_are_the_committed_results(run):
    """The interval of each verdict stands in the row that links the run."""
    page = (ROOT / "docs/questions.md").read_text().replace("−", "-")
    (row,) = (line for line in page.splitlines() if f"`results/{run}`" in line)
    result = load_result(ROOT / "results" / run.replace("…", "smollm2-135m-instruct"))
    intervals = [finding.verdict.interval for finding in result.verdicts]
    expected = [tuple(f"{e:+.3f}" for e in (i.estimate, i.low, i.high)) for i in intervals]
    assert INTERVAL.findall(row) == expected


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
    page = (ROOT / "docs/second-model.md").read_text().replace("−", "-")
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
    """The intervals of all verdicts stand in the rows that link the run, the means in a table."""
    result = load_result(ROOT / "results/upbringing")
    page = (ROOT / "docs/questions.md").read_text().replace("−", "-")
    rows = "".join(line for line in page.splitlines() if "`results/upbringing`" in line)
    intervals = [finding.verdict.interval for finding in result.verdicts]
    expected = [tuple(f"{e:+.3f}" for e in (i.estimate, i.low, i.high)) for i in intervals]
    assert INTERVAL.findall(rows) == expected
    layers = result.tables["layers"]
    means = layers.set_index(["arm", "measure", "scope", "point"])["mean"]
    findings = (ROOT / "docs/findings.md").read_text()
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
MLP_READER = "## A reader whose MLPs adapt too"


@pytest.mark.parametrize(
    ("run", "page", "heading", "condition", "alone"),
    [
        (SMOLLM2 + "reader", "findings", READER, ("condition", "as trained"), "zero"),
        ("reader-mlp", "findings", MLP_READER, ("condition", "as trained"), "zero"),
        (GEMMA + "reader", "second-model", READER, ("condition", "as trained"), "zero"),
        (SMOLLM2 + "increment", "findings", INCREMENT, ("source", "true"), "base"),
        (GEMMA + "increment", "second-model", INCREMENT, ("source", "true"), "base"),
    ],
)
def test_the_findings_on_trainings_are_the_committed_results(run, page, heading, condition, alone):
    """A row for each kind of text: against all the others, and without the write or increment."""
    table = load_result(ROOT / "results" / run).tables["contrasts"]
    column, value = condition
    chosen = table[table[column] == value].set_index(["scope", "minus"])
    expected = [
        [tuple(f"{end:+.3f}" for end in chosen.loc[(scope, minus), ENDS]) for minus in pair]
        for scope in ("copyable", "other", "all", "second copies")
        for pair in [(JOINT, alone)]
    ]
    findings = (ROOT / f"docs/{page}.md").read_text().replace("−", "-")
    rows = findings.partition(heading)[2].partition("\n## ")[0].splitlines()
    assert [
        found for row in rows if row[:1] == "|" and (found := INTERVAL.findall(row))
    ] == expected


ENDS = ["estimate", "low", "high"]
SIGNED, PLAIN = "{:.3f} [{:+.3f}, {:+.3f}]", "{:.3f} [{:.3f}, {:.3f}]"


@pytest.mark.parametrize(
    ("page", "model"),
    [("findings", "smollm2-135m-instruct"), ("second-model", "gemma-3-270m")],
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
    section = (ROOT / f"docs/{page}.md").read_text().partition("## To first order")[2]
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
