"""The trained networks, as bridges and patches for the rest of the library."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast

from ...intervention.learned_write import LearnedWrite
from ...intervention.patch import NextTokenPatch
from ...intervention.sources import SOURCES
from ...model.fingerprint import fingerprint
from ..design.small_networks.bridges import bridge_of
from ..design.small_networks.corpus import corpus_of
from ..design.small_networks.training import load_network
from ..engine.json_values import from_values
from ..engine.run_directory import unit_file
from ..engine.run_header import RunDirectoryError, read_header
from .arms import UNWRITTEN, ScratchTraining
from .network import Network
from .settings import ScratchSettings
from .stages import TABLE


@dataclass(frozen=True)
class StartingModel:
    """The model of a run: its first network before the first step, with its tokenizer.

    Every process of a run makes its own.

    Attributes:
        settings: the settings of the run.
    """

    settings: ScratchSettings

    def __call__(self) -> TransformerBridge:
        """The bridge."""
        first = self.settings.trainings[0]
        network = Network(self.settings.shape_of(first.blocks), first.entry, first.seed)
        return bridge_of(network.model, corpus_of(self.settings.corpus).tokenizer, "scratch")


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network that grew up with a write.

    Attributes:
        bridge: the network.
        patch: the write that it was trained with, at the block that it was trained at; None in the
            arms without one.
    """

    bridge: TransformerBridge
    patch: NextTokenPatch | None


def trained_model(
    network: Network, training: ScratchTraining, tokenizer: PreTrainedTokenizerFast
) -> TrainedModel:
    """A network and its write, for the rest of the library; do not use the network afterwards.

    Raises `ValueError` for an arm whose source has no name in the registry of patches.
    """
    up, bias = network.up.detach().clone(), network.bias.detach().clone()
    bridge = bridge_of(network.model, tokenizer, training.name)
    if training.arm in UNWRITTEN:
        return TrainedModel(bridge, None)
    if training.arm not in SOURCES:
        raise ValueError(
            f"no patch has the source {training.arm!r}: the registry has {', '.join(SOURCES)}"
        )
    write = LearnedWrite(
        layers=(training.entry,),
        down=None,
        up=up[None],
        bias=bias[None],
        trained_with=training.arm,
        source=training.arm,
        embedding="W_E",
        scale="raw",
        first_position=0,
        fingerprint=fingerprint(bridge),
        settings={**training.columns(), "model": training.name},
    )
    return TrainedModel(bridge, write.patch(seed=training.seed))


class TrainedModels(Mapping[ScratchTraining, TrainedModel]):
    """The trained networks of a run by training, each read when it is asked for."""

    def __init__(self, directory: Path, settings: ScratchSettings) -> None:
        """`directory` is the directory of a run with these settings."""
        self._settings = settings
        self._files = {
            training: file
            for training in settings.trainings
            if (file := unit_file(directory, TABLE, training.name)).is_file()
        }

    def __getitem__(self, training: ScratchTraining) -> TrainedModel:
        network = Network(self._settings.shape_of(training.blocks), training.entry, training.seed)
        file = self._files[training]
        corpus = corpus_of(self._settings.corpus)
        if load_network(network, file)["tokens"] != corpus.digest():
            raise RunDirectoryError(
                f"{file} was trained on other tokens than {', '.join(self._settings.texts)} has "
                "here: give the texts of the run (those of standard_library differ between "
                "versions of Python)"
            )
        return trained_model(network, training, corpus.tokenizer)

    def __iter__(self) -> Any:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def trained_models(directory: str | Path) -> TrainedModels:
    """The networks of a run of `scratch`, by training: `models[training].bridge` and `.patch`.

    For an unfinished training, this is the network at its last evaluation. The tokenizer is made
    from the texts again, which must be those of the run.

    Raises `RunDirectoryError` if the directory has no such networks, and for a network that is
    asked for if the texts have changed.
    """
    path = Path(directory)
    header = read_header(path)
    if header["experiment"] != "scratch":
        raise RunDirectoryError(f"{path} is a run of {header['experiment']}, not of scratch")
    models = TrainedModels(path, from_values(ScratchSettings, header["settings"]))
    if not models:
        raise RunDirectoryError(f"{path} holds no networks")
    return models
