"""Prose from docstrings: what is prose, and what is found in installed packages."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from lens_interventions import materials
from lens_interventions.materials import docstrings
from lens_interventions.materials.docstrings import prose_of

DOCSTRING = """Find the root of a `function`, as :func:`~package.solve` does.

    The method of *Brent* [1]_ is ``safe``; see :ref:`the guide <guide>`
    or `the page <https://page.org>`_.

    .. versionadded:: 1.2

    Warning! A second paragraph.

    Parameters
    ----------
    f : callable
        The function.

    Notes
    -----
    The root lies between $a$ and $b$ (``~Bracket``).

    The error is

    .. math:: \\epsilon^2

    where this paragraph goes on after a formula.

    It depends on :math:`\\alpha`, which is a formula.

    The following is left out:

    - A list is.
    - Another.

    Examples
    --------
    This is an example.

    >>> solve(f)
    3
    """


def test_paragraphs_of_sentences_are_kept_without_their_markup() -> None:
    assert prose_of(DOCSTRING) == (
        "Find the root of a function, as package.solve does.\n\n"
        "The method of Brent [1] is safe; see the guide or the page.\n\n"
        "Warning! A second paragraph.\n\n"
        "The root lies between a and b (Bracket)."
    )


def test_a_docstring_of_parameters_alone_has_no_prose() -> None:
    assert prose_of("Parameters\n----------\nx : int\n    A number.") == ""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package `explained` that cannot be imported."""
    folder = tmp_path / "explained"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError")
    metadata = tmp_path / "explained-1.2.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: explained\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(docstrings, "PACKAGES", ("explained", "not_installed"))
    return folder


def explanation(word: str, n: int) -> str:
    return f"The {' '.join(f'{word}{i}' for i in range(n - 1))}."


def test_long_docstrings_are_read_from_source_files(package: Path) -> None:
    long, method = explanation("a", 130), explanation("b", 121)
    (package / "b.py").write_text(
        f'"""{long}"""\n'
        f'def short():\n    """{explanation("c", 90)}"""\n'
        f'class A:\n    def method(self):\n        """{method}"""\n'
    )
    (package / "a.py").write_text(f'def again():\n    """{explanation("a", 125)}"""\n')
    (package / "newer.py").write_text(f'"""{explanation("d", 130)}"""\nthis is no Python\n')
    (package / "tests").mkdir()
    (package / "tests" / "b.py").write_text(f'"""{explanation("e", 130)}"""\n')
    assert docstrings.docstring_versions() == {"explained": "1.2"}
    found = docstrings.docstring_prose.__wrapped__()
    assert [(d.title, d.text) for d in found] == [
        ("explained.b", long),
        ("explained.b.A.method", method),
    ]


def test_installed_packages_have_prose_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    # A third of the packages, to save seconds.
    monkeypatch.setattr(docstrings, "PACKAGES", ("huggingface_hub", "mpmath", "networkx", "numpy"))
    found = docstrings.docstring_prose.__wrapped__()
    assert len(found) >= 120
    assert len({document.title for document in found}) == len(found)
    for document in found:
        assert len(document.text.split()) >= 120
        assert not re.search(r">>>|::|:[a-z]+:`|\\|^\s|\n\n\n|[^.!?\"')]$", document.text)
    assert {d.title.split(".")[0] for d in found} == {*docstrings.PACKAGES}


def test_versions_are_those_of_the_installed_packages() -> None:
    versions = materials.docstring_versions()
    assert versions == {name: importlib.metadata.version(name) for name in docstrings.PACKAGES}
