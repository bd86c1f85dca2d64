"""The counts and the balance that the experiments rely on, and reading a user's texts."""

import itertools
import json
from collections import Counter

import pytest

from lens_interventions import materials


def test_templates_are_crossed_and_balanced():
    templates = materials.templates()
    assert len(templates) == len(set(templates)) == 384
    assert len({template.frame for template in templates}) == 24
    cells = Counter((t.frame, t.frequency, t.distance) for t in templates)
    assert set(cells.values()) == {4}
    assert len(cells) == 24 * 2 * 2
    for _, group in itertools.groupby(templates, key=lambda template: template.group):
        items = list(group)
        words = {item.word for item in items}
        assert {(i.frame, i.word) for i in items} == {
            (frame, word) for frame in {i.frame for i in items} for word in words
        }


def test_each_template_says_its_word_once_and_stops_before_it():
    for template in materials.templates():
        assert template.prefix.count(template.word) == 1
        assert template.prefix[-1].isalpha()
        assert template.continuation == f" {template.word}"
        assert "{" not in template.prefix


def test_far_templates_put_something_else_between():
    by_item = {(t.frame, t.word, t.distance): t for t in materials.templates()}
    for (frame, word, distance), far in by_item.items():
        if distance == "far":
            near = by_item[frame, word, "near"]
            apart = len(far.prefix) - far.prefix.index(word)
            assert apart >= len(near.prefix) - near.prefix.index(word) + 40
            assert far.prefix.split(".")[0] == near.prefix.split(".")[0]


def test_a_template_reads_as_written():
    (template,) = (
        t
        for t in materials.templates()
        if (t.frame, t.word, t.distance) == ("dictionary", "osmosis", "near")
    )
    assert template.prefix == (
        "Most people who use the word osmosis have never looked it up. I did so last night, and "
        "since then I have not been sure that I ever understood the word"
    )
    assert (template.group, template.frequency) == ("idea", "rare")


def test_prompts_are_varied_and_short():
    prompts = materials.prompts()
    assert len({prompt.text for prompt in prompts}) == 72
    assert Counter(prompt.register for prompt in prompts).most_common()[-1][1] == 4
    assert all(5 <= len(prompt.text.split()) <= 25 for prompt in prompts)


def test_passages_can_be_repeated():
    passages = materials.passages()
    assert len({passage.text for passage in passages}) == 16
    # a repeated passage begins and ends like one that a space or a line can join
    assert all(passage.text == passage.text.strip() for passage in passages)
    assert all(passage.text[-1] in '."' for passage in passages)


def test_prose_is_forty_titled_paragraphs():
    prose = materials.prose()
    assert len({document.title for document in prose}) == len(prose) == 40
    assert all(80 <= len(document.text.split()) <= 120 for document in prose)
    assert all(document.register and "|" not in document.text for document in prose)
    assert len({document.register for document in prose}) >= 20


def test_python_reference_is_the_one_that_help_prints():
    reference = {document.title: document.text for document in materials.python_reference()}
    assert "while" in reference
    assert "repeated execution" in reference["while"]
    assert sum(map(len, reference.values())) > 300_000


def test_read_texts_splits_at_blank_lines(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("first\nsecond line\n \n\nzweite Datei: größer\n", encoding="utf-8")
    assert materials.read_texts(path) == ["first\nsecond line", "zweite Datei: größer"]
    assert materials.read_texts(str(path), whole=True) == [path.read_text(encoding="utf-8")]


def test_read_texts_reads_a_field_of_jsonl(tmp_path):
    path = tmp_path / "texts.jsonl"
    # a text may hold a line separator that is no line end of the file
    entries = [{"body": "one\n\ntwo\u2028three"}, {"body": "four"}]
    path.write_text("\n".join(json.dumps(e, ensure_ascii=False) for e in entries), encoding="utf-8")
    assert materials.read_texts(path, field="body") == ["one\n\ntwo\u2028three", "four"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.txt", b" \n\n", "holds no text"),
        ("latin.txt", "größer".encode("latin-1"), "not UTF-8"),
        ("broken.jsonl", b'{"text": "a"}\n{"text', "line 2 is not JSON"),
        ("other.jsonl", b'{"body": "a"}', "line 1: expected .* 'text', got body"),
        ("number.jsonl", b'{"text": 3}', "expected an object with a string"),
        ("list.jsonl", b"[1]", "got list"),
    ],
)
def test_files_without_usable_texts_are_refused(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        materials.read_texts(path)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"body": f"text {i}" if i else "", "id": i} for i in range(5)]
    folder = tmp_path / "data"
    folder.mkdir()
    lines = "\n".join(json.dumps(row) for row in rows)
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    return str(folder)


def test_dataset_column_reads_the_beginning(dataset):
    assert materials.dataset_column(dataset, "body", limit=2) == ["text 1", "text 2"]
    assert len(materials.dataset_column(dataset, "body")) == 4


def test_dataset_column_says_what_is_wrong(dataset):
    with pytest.raises(ValueError, match="no column 'text'; it has body, id"):
        materials.dataset_column(dataset, "text")
    with pytest.raises(TypeError, match=r"'id' .* holds int, expected text"):
        materials.dataset_column(dataset, "id")
    with pytest.raises(ValueError, match="limit"):
        materials.dataset_column(dataset, "body", limit=0)
