"""Repeated passages: what counts as one, which document stays, what belongs together."""

import pytest

from lens_interventions import materials
from lens_interventions.materials import Document
from lens_interventions.materials.corpora import python_code
from lens_interventions.materials.shingles import groups, share_in, shingles, without_repeats


def numbered(word: str, n: int) -> str:
    """`n` different words."""
    return " ".join(f"{word}{i}" for i in range(n))


def documents(*texts: str) -> list[Document]:
    return [Document(str(number), text, "") for number, text in enumerate(texts)]


def runs(text: str) -> set[str]:
    """Thirteen words in a row, spelled as they are."""
    words = text.split()
    return {" ".join(words[i : i + 13]) for i in range(len(words) - 12)}


def test_a_text_of_n_words_has_n_minus_12_shingles() -> None:
    assert len(shingles(numbered("a", 20))) == 8
    assert len(shingles(numbered("a", 13))) == len(shingles(numbered("a", 4))) == 1
    assert len(shingles("...")) == 1


def test_case_punctuation_and_lines_do_not_count() -> None:
    assert shingles("The first, (second)\n\n  third.") == shingles("the FIRST second third")
    assert shingles("the first second") != shingles("the first third")


def test_the_share_is_of_the_text_that_is_asked_about() -> None:
    whole = numbered("a", 112)
    piece = " ".join(whole.split()[:37])
    assert share_in(shingles(piece), shingles(whole)) == 1
    assert share_in(shingles(whole), shingles(piece)) == 0.25


def test_a_section_with_another_heading_goes_and_its_chapter_stays() -> None:
    chapter = numbered("a", 300)
    section = "Another heading\n***\n" + " ".join(chapter.split()[100:180]).upper()
    other = numbered("b", 80)
    kept = without_repeats(documents(section, other, chapter))
    assert [document.title for document in kept] == ["1", "2"]


def test_of_equal_texts_the_first_stays_and_a_quotation_does_not_count() -> None:
    text = numbered("a", 100)
    quoting = f"{numbered('b', 100)} {' '.join(text.split()[:20])}"
    kept = without_repeats(documents("short", text, quoting, text, "short"))
    assert [document.title for document in kept] == ["0", "1", "2"]


def test_documents_that_are_connected_through_others_are_one_group() -> None:
    a, b, c = (numbered(word, 60).split() for word in "abc")
    texts = [
        " ".join(a[:30]),
        " ".join(b),
        " ".join(c[30:]),
        " ".join(a[10:] + c[:20]),
        " ".join(c[:45]),
    ]
    assert groups(documents(*texts)) == [0, 1, 0, 0, 0]
    # Twelve words in common are not enough.
    assert groups(documents(" ".join(a[:20]), " ".join(a[8:40]))) == [0, 1]


@pytest.mark.parametrize("corpus", [materials.python_reference, materials.prose, python_code])
def test_no_document_of_the_library_stands_in_others(corpus) -> None:
    of_title = {document.title: runs(document.text) for document in corpus()}
    times: dict[str, int] = {}
    for run in (run for own in of_title.values() for run in own):
        times[run] = times.get(run, 0) + 1
    for title, own in of_title.items():
        assert sum(times[run] > 1 for run in own) <= 0.25 * max(len(own), 1), title


def test_the_reference_keeps_chapters_and_leaves_their_sections_out() -> None:
    titles = {document.title for document in materials.python_reference()}
    assert "compound" in titles
    assert titles.isdisjoint({"for", "if", "while", "with", "function", "naming"})


def test_a_passage_is_found_in_scripts_without_spaces_or_with_vowel_signs() -> None:
    chinese = "模型在每一层都会产生一个对下一个词的猜测并且这些猜测会逐层收敛到最终的输出"
    assert len(shingles(chinese)) == len(chinese) - 12
    assert groups(documents(f"甲乙丙丁。{chinese}", f"{chinese}，戊己庚辛")) == [0, 0]
    hindi = "हिन्दी में लिखा हुआ वाक्य"
    assert len(shingles(f"{hindi} {numbered('a', 9)}")) == 2  # five words, and nine
