"""Reading the Python reference and a user's own texts."""

import json

import pytest

from lens_interventions import materials


def test_python_reference_is_the_one_that_help_prints():
    reference = {document.title: document.text for document in materials.python_reference()}
    assert "repeated execution" in reference["compound"]
    assert sum(map(len, reference.values())) > 300_000


def test_read_texts_splits_at_blank_lines(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("first\nsecond line\n \n\nzweite Datei: größer\n", encoding="utf-8")
    assert materials.read_texts(path) == ["first\nsecond line", "zweite Datei: größer"]
    assert materials.read_texts(str(path), whole=True) == [path.read_text(encoding="utf-8")]


def test_read_texts_reads_what_windows_writes(tmp_path):
    lines = tmp_path / "TEXTS.JSONL"
    lines.write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n{"text": "two"}\r\n')
    assert materials.read_texts(lines) == ["one", "two"]
    plain = tmp_path / "texts.txt"
    plain.write_bytes(b"\xef\xbb\xbfone\r\nline\r\n\r\ntwo")
    assert materials.read_texts(plain) == ["one\nline", "two"]


def test_read_texts_reads_a_field_of_jsonl(tmp_path):
    path = tmp_path / "texts.jsonl"
    # a text may hold a line separator that is no line end of the file
    entries = [{"body": "one\n\ntwo\u2028three"}, {"body": "four"}]
    path.write_text("\n".join(json.dumps(e, ensure_ascii=False) for e in entries), encoding="utf-8")
    assert materials.read_texts(path, field="body") == ["one\n\ntwo\u2028three", "four"]


def test_a_field_of_what_is_no_jsonl_is_refused(tmp_path):
    path = tmp_path / "texts.json"
    path.write_text('{"body": "one"}')
    with pytest.raises(ValueError, match=r"texts.json is read as plain text, .* 'body'.* \.jsonl"):
        materials.read_texts(path, field="body")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.txt", b" \n\n", "holds no text"),
        ("latin.txt", "größer".encode("latin-1"), "not UTF-8"),
        ("broken.jsonl", b'{"text": "a"}\n{"text', "line 2 is not JSON"),
        ("other.jsonl", b'{"body": "a"}', "line 1: expected .* 'text', got the keys .'body'."),
        ("number.jsonl", b'{"text": 3}', "a string under 'text', got int there"),
        ("deep.jsonl", b"[" * 100_000, "line 1: its JSON is nested too deeply"),
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
    rows = [{"body": f"text {i}", "id": i} for i in range(1, 5)]
    rows += [{"body": nothing, "id": 0} for nothing in ("", None)]
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


def test_entries_without_text_are_left_out_of_lines_as_of_columns(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n{"text": null}\n{"text": " "}\n{"text": "b"}')
    assert materials.read_texts(path) == ["a", "b"]


@pytest.mark.parametrize("suffix", ["ndjson", "jsonlines", "JSONL"])
def test_lines_of_json_have_several_names(tmp_path, suffix):
    path = tmp_path / f"texts.{suffix}"
    path.write_text('{"body": "one\\n\\ntext"}\n{"body": "another"}')
    assert materials.read_texts(path, field="body") == ["one\n\ntext", "another"]
