"""`lens-interventions report`: it writes a page about the runs that it is given."""

from tests.support.made_up_runs import save_run


def test_the_command_writes_the_page(command, tmp_path):
    save_run(tmp_path / "a", "copying")
    out = tmp_path / "r.html"
    status, _, err = command("report", tmp_path, "--out", out, "--title", "Q & A")
    assert status == 0, err
    assert f"wrote {out}" in err
    assert "<title>Q &amp; A</title>" in out.read_text(encoding="utf-8")


def test_a_mistake_leaves_no_directory(command, tmp_path):
    save_run(tmp_path / "a", "copying")
    for runs, name in (("nowhere", "r.html"), ("a", "r.txt")):
        status, _, _ = command("report", tmp_path / runs, "--out", tmp_path / "new" / name)
        assert status != 0
        assert not (tmp_path / "new").exists()
