"""Checkpoints of the tuned-lens library as affine lenses."""

import json
from pathlib import Path
from pickle import UnpicklingError

import torch

from ..model.hub import hub_if_it_answers
from ..model.user_warnings import warn_user
from .affine import UNEMBEDDING, UNKNOWN, AffineLens

# The repository in which the tuned-lens library looks up names (its load_artifacts module).
_REPOSITORY, _FOLDER = "AlignmentResearch/tuned-lens", "lens"
_CONFIG, _PARAMETERS = "config.json", "params.pt"
_KIND = "linear_tuned_lens"


def load_tuned_lens(path_or_name: str | Path, *, revision: str | None = None) -> AffineLens:
    """A checkpoint of the tuned-lens library (Belrose et al. 2023) as an `AffineLens`.

    A checkpoint is a folder with `config.json` and `params.pt`, which holds `l.weight`
    (`[d_model out, d_model in]`) and `l.bias` for every layer: `r[l]` becomes
    `r + weight r + bias`. If the checkpoint holds a hash of its unembedding, the lens is refused on
    any other; otherwise a warning says that it will be applied to any model of its size.

    **Arguments:**

    - `path_or_name`: a local folder, or a name such as "gpt2" in the collection that the tuned-lens
        authors keep on the Hugging Face hub.
    - `revision`: the revision of that collection, by default its newest.

    Raises `FileNotFoundError` if there is no such folder or name, `ValueError` if the files are not
    a checkpoint of an affine tuned lens, or a revision of a local folder is asked for.
    """
    folder = _folder(path_or_name, revision)
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise _no_checkpoint(folder, f"{_CONFIG} is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise _no_checkpoint(folder, f"{_CONFIG} is not a JSON object")
    if config.get("lens_type", _KIND) != _KIND:
        raise ValueError(f"{folder} holds a {config['lens_type']!r}; only {_KIND!r} can be read")
    try:
        n_layers, d_model = config["num_hidden_layers"], config["d_model"]
        state = torch.load(folder / _PARAMETERS, map_location="cpu", weights_only=True)
        weights = torch.stack([state[f"{layer}.weight"].float().T for layer in range(n_layers)])
        no_bias = torch.zeros(d_model)
        biases = torch.stack(
            [state.get(f"{layer}.bias", no_bias).float() for layer in range(n_layers)]
        )
    except KeyError as error:
        raise _no_checkpoint(folder, f"no {error}") from error
    except (EOFError, IndexError) as error:
        raise _no_checkpoint(folder, f"{_PARAMETERS} holds no layer") from error
    except (AttributeError, TypeError, RuntimeError, UnpicklingError) as error:
        raise _no_checkpoint(folder, str(error)) from error
    if weights.shape[1:] != (d_model, d_model) or biases.shape[1:] != (d_model,):
        raise ValueError(
            f"{folder} has maps of shape {tuple(weights.shape[1:])} and biases of "
            f"{tuple(biases.shape[1:])}, but config.json says d_model is {d_model}"
        )
    hashed = config.get("unembed_hash")
    if hashed is None:
        warn_user(
            f"{folder} does not say which unembedding it was trained for: it will be applied to "
            "any model of its size",
        )
    return AffineLens(
        weights,
        biases,
        f"{UNEMBEDDING} {hashed}" if hashed else UNKNOWN,
        {
            "model": config.get("base_model_name_or_path"),
            "revision": config.get("base_model_revision"),
            "source": f"tuned-lens checkpoint {path_or_name}",
        },
    )


def _no_checkpoint(folder: Path, why: str) -> ValueError:
    return ValueError(f"{folder} is not a checkpoint of tuned-lens: {why}")


def _folder(path_or_name: str | Path, revision: str | None) -> Path:
    folder = Path(path_or_name)
    if folder.exists():
        if revision is not None:
            raise ValueError(
                f"revision goes with a name on the hub, and {folder} has one version only: give "
                "the folder of the checkpoint that you want"
            )
        missing = [name for name in (_CONFIG, _PARAMETERS) if not (folder / name).is_file()]
        if missing:
            raise _no_checkpoint(folder, f"no {missing[0]}")
        return folder
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        with hub_if_it_answers():
            files = [
                hf_hub_download(
                    _REPOSITORY,
                    f"{_FOLDER}/{path_or_name}/{name}",
                    repo_type="space",
                    revision=revision,
                )
                for name in (_CONFIG, _PARAMETERS)
            ]
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no folder {path_or_name!r}, and the hub cannot be reached: pass a folder "
            f"with {_CONFIG} and {_PARAMETERS}"
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{path_or_name!r} is neither a folder nor a name in {_REPOSITORY} on the hub"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{_REPOSITORY} on the hub has no revision {revision!r}") from error
    return Path(files[0]).parent
