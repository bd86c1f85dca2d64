"""The pages in docs/: Python blocks run, commands and what is referred to exist, the menu is whole.

Blocks run on a model with the layers of the embedded one, but random weights, 32 dimensions and
1,000 tokens: what a page does is the same, and takes seconds.
"""

import inspect
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast

import lens_interventions as li
from lens_interventions.experiments import CopyingSettings
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.engine import model_source
from lens_interventions.model import load as models
from tests.support.pages import (
    ROOT,
    assert_command_exists,
    assert_pictures_are_there,
    blocks,
    commands,
)
from tests.support.tiny import tiny_model
from tests.support.tuned_checkpoint import write_checkpoint

DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
N_LAYERS, WIDTH = 30, 32

# Sampling text from random weights may draw any byte, and a pool of threads may outlive a page.
pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning"), pytest.mark.long]


def small_tokenizer():
    """1,000 tokens of English, among them the words that pages watch."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [document.text for document in li.materials.prose()]
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*corpus, " plasma Paris mat" * 100], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        name_or_path="small",
        add_bos_token=True,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )


@pytest.fixture(scope="module")
def narrow_bridge():
    tokenizer = small_tokenizer()
    model = tiny_model(
        "llama",
        dtype=torch.float32,
        num_hidden_layers=N_LAYERS,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
    )
    return TransformerBridge.boot_transformers(
        "narrow", hf_model=model, dtype=torch.float32, device="cpu", tokenizer=tokenizer
    )


@pytest.fixture(scope="module")
def copying_run(tmp_path_factory):
    """Where the run that two pages make, with the same settings, is kept for the second one."""
    return tmp_path_factory.mktemp("kept") / "copying"


@pytest.fixture
def place(narrow_bridge, copying_run, tmp_path, monkeypatch):
    """A directory with the files that pages name, where the narrow model is the only one."""
    signature = inspect.signature(models.load_model)

    def load_model(*args, **options):
        signature.bind(*args, **options)
        return narrow_bridge

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(li, "load_model", load_model)
    monkeypatch.setattr(model_source, "load_model", load_model)
    model_source._loaded.cache_clear()
    monkeypatch.setattr(CopyingSettings, "preset", classmethod(small_copying))
    templates = [
        item
        for item in li.materials.templates()
        if (item.group, item.distance) == ("object", "near")
    ]
    monkeypatch.setattr(li.materials, "templates", lambda: templates)
    documents = [document.text for document in li.materials.prose()[:6]]
    lines = (json.dumps({"text": text}) for text in documents)
    Path("texts.jsonl").write_text("\n".join(lines))
    write_checkpoint(Path("tuned-lens-checkpoint"), narrow_bridge)
    made = Path("runs/copying")
    if copying_run.exists():
        shutil.copytree(copying_run, made)
    yield tmp_path
    if (made / "result.json").exists() and not copying_run.exists():
        shutil.copytree(made, copying_run)
    model_source._loaded.cache_clear()


def small_copying(cls, name, n_layers):
    assert name in ("quick", "full")
    assert n_layers == N_LAYERS
    return cls(
        layers=(24,),
        strengths=(0.1,),
        modes=("interpolate",),
        shortlist=1,
        induction_sequences=(4, 4),
        induction_length=4,
        template_words=(1, 1),
        texts=("prose",),
        documents=(2, 2),
        document_tokens=12,
        repeat_texts=("prose",),
        repeat_documents=(2, 2),
        repeat_tokens=12,
        temperatures=(1.1,),
        resampling=replace(Resampling(), n_resamples=99),
    )


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(PAGES[page], "python")])
def test_the_python_blocks_run(page, place):
    names = {"__name__": "page"}
    for block in blocks(PAGES[page], "python"):
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("line", commands(PAGES.values()))
def test_the_commands_exist(line):
    assert_command_exists(line)


@pytest.mark.parametrize("page", PAGES)
def test_benchmarks_that_are_named_exist(page):
    for name in re.findall(r"benchmarks\.(\w+)", PAGES[page]):
        assert (ROOT / "benchmarks" / f"{name}.py").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_references_are_to_what_the_pages_describe(page):
    shown = {name for text in PAGES.values() for name in re.findall(r"^::: (\S+)$", text, re.M)}
    described = [resolve_name(name) for name in shown]
    for name in re.findall(r"\]\[(lens_interventions\b.*?)\]", PAGES[page], re.DOTALL):
        # A name of a method or of a module's function is described with its class or module.
        found = [resolve_name(name), resolve_name(name.rpartition(".")[0])]
        assert any(each is one for each in found for one in described), name


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1].split("\n\n")[0]
    assert sorted(re.findall(r"(\S+\.md)$", menu, re.MULTILINE)) == sorted(PAGES)


def test_pictures_and_included_files_are_there():
    for page, text in PAGES.items():
        assert_pictures_are_there(DOCS / page)
        for path, section in re.findall(r'--8<-- "(.*?)(?::(.*?))?"', text):
            included = (ROOT / path).read_text()
            for end in ("start", "end") if section else ():
                assert f"<!-- --8<-- [{end}:{section}] -->" in included


def test_every_promise_names_tests_that_exist():
    page = PAGES["how-to/promises.md"]
    rows = [line for line in page.splitlines() if line.startswith("|")]
    promises = [row for row in rows if not row.startswith(("| promise", "|---"))]
    assert len(promises) > 20
    for promise in promises:
        named = re.findall(r"`([\w/]+\.py)::(?:\w+::)*(\w+)`", promise)
        assert named, promise
        assert len(named) == promise.count(".py::"), promise
        for file, test in named:
            text = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^ *def {test}\(", text, re.MULTILINE), test
