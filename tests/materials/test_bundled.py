"""The counts and the balance that the experiments rely on."""

import itertools
from collections import Counter

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
