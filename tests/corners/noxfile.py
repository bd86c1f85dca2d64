"""The core tests with the corners of the versions that pyproject.toml allows: `make compat`.

Every corner has an environment of its own, kept between runs. What passed there goes into
results.json beside this file and, as a table, into docs/how-to/versions.md. A corner that has a
result for today's code is passed over.
"""

import datetime
import hashlib
import json
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import nox

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results.json"
PAGE = ROOT / "docs" / "how-to" / "versions.md"

CORE = (
    "tests/model/test_attention_cache.py",
    "tests/model/test_capabilities.py",
    "tests/model/test_hooked_transformer.py",
    "tests/model/test_hooked_transformer_guards.py",
    "tests/model/test_kinds.py",
    "tests/model/test_llama_block.py",
    "tests/model/test_readout.py",
    "tests/model/test_residuals.py",
    "tests/model/test_sae_lens.py",
    "tests/lens/test_logit_lens.py",
    "tests/intervention/test_equivalence.py",
    "tests/intervention/test_shared_keys.py",
    "tests/intervention/generation",
    "tests/intervention/teacher_forcing",
)
TOOLS = ("beartype", "hypothesis", "networkx", "psutil", "pytest", "pytest-xdist")

# Name of the corner: Python, and what is installed beside this package.
CORNERS = {
    "TransformerLens 3.9": ("3.11", ["transformer_lens==3.9.*", "transformers==5.23.*"]),
    "TransformerLens 3.9, sae-lens": ("3.11", ["sae-lens==6.54.*"]),
    "transformers 5.9": ("3.11", ["transformers==5.9.*"]),
    "transformers 5.20": ("3.11", ["transformers==5.20.*"]),
    "transformers 5.23": ("3.11", ["transformers==5.23.*"]),
    "transformers 5.24": ("3.11", ["transformers==5.24.*"]),
    "transformers 5.25": ("3.11", ["transformers==5.25.*"]),
    "torch 2.6": ("3.11", ["torch==2.6.*"]),
    "newest on Python 3.12": ("3.12", []),
    "newest on Python 3.13": ("3.13", []),
}
SHOWN = ("transformer_lens", "transformers", "torch")

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.envdir = str(ROOT / ".corners")


@nox.session
@nox.parametrize(
    "python,corner", [nox.param(python, name, id=name) for name, (python, _) in CORNERS.items()]
)
def core(session: nox.Session, corner: str) -> None:
    """Run the core tests in one corner, and keep what came of it."""
    _, pins = CORNERS[corner]
    code = _hash_of_code(pins)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if kept.get(corner, {}).get("code") == code and not session.posargs:
        session.skip(f"{corner} has a result for this code; `-- again` runs it once more")
    session.install("--editable", str(ROOT), *TOOLS, *pins)
    report = Path(session.create_tmp()) / "report.xml"
    session.chdir(ROOT)
    session.run(
        *(
            "python",
            "-m",
            "pytest",
            "-n",
            "2",
            "--dist",
            "loadfile",
            "-q",
            "-p",
            "no:cacheprovider",
        ),
        *(f"--junitxml={report}", *CORE),
        success_codes=[0, 1],
    )
    listed = session.run("python", "-m", "pip", "list", "--format=json", silent=True)
    found = {
        package["name"].replace("-", "_"): package["version"] for package in json.loads(listed)
    }
    kept[corner] = {
        "code": code,
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "python": session.python,
        "versions": {name: found[name] for name in SHOWN if name in found},
        **_counts(report),
    }
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), kept))


def with_table(page: str, kept: dict) -> str:
    """The page with the table of all results between its marks."""
    lines = [
        "| corner | Python | TransformerLens | transformers | torch | passed | failed | date |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for corner in [name for name in CORNERS if name in kept]:
        of = kept[corner]
        versions = [of["versions"].get(name, "") for name in SHOWN]
        failed = "; ".join(f"`{name}`" for name in of["failed"]) or "0"
        cells = [corner, of["python"], *versions, of["passed"], failed, of["date"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    table = "\n".join(lines)
    return re.sub(
        r"(<!-- corners -->\n).*?(<!-- end of corners -->)", rf"\1{table}\n\2", page, flags=re.S
    )


def _counts(report: Path) -> dict:
    kinds = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    names: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for case in ElementTree.parse(report).iter("testcase"):
        told = [kinds[child.tag] for child in case if child.tag in kinds]
        names[told[0] if told else "passed"].append(f"{case.get('classname')}::{case.get('name')}")
    return {
        "passed": len(names["passed"]),
        "failed": sorted(names["failed"]),
        "skipped": len(names["skipped"]),
    }


def _hash_of_code(pins: list[str]) -> str:
    hashed = hashlib.sha256(" ".join(pins).encode())
    package = sorted((ROOT / "lens_interventions").rglob("*.py"))
    for path in [*package, ROOT / "pyproject.toml"]:
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def _commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.strip()
