"""Download from the Hugging Face hub and upload to it; errors are one sentence that says what to do.

The calls are huggingface_hub's; its `PyTorchModelHubMixin` is not used. It builds a model from keywords that are plain
JSON, where a pipeline holds two networks; writes one file without the tokenizer's folder; loads missing weights without
an error by default, and a pickle where there are no safetensors; and is imported with the class, not at the first use.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..utils import network
from . import format, model_card

FILES = tuple(f"{folder}{name}" for folder in ("", f"{format.TOKENIZER}/") for name in format.FILES)


class Repository(str):
    """Id of a repository on the hub: owner/name."""


def is_id(text: str) -> bool:
    """Return whether a text has the form of an id on the hub."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is not None


def fetch(repository: str, file: str) -> Path:
    """Return the path of a repository's file in the cache of huggingface_hub, downloaded if need be."""
    import huggingface_hub

    with explained(repository, file):
        return Path(huggingface_hub.hf_hub_download(repository, file))


def fetch_model(repository: str) -> Path:
    """Return the path, in the cache of huggingface_hub, of a repository that holds a model directory.

    Its config is checked before anything large is downloaded.
    """
    import huggingface_hub

    with explained(repository, format.CONFIG):
        directory = Path(huggingface_hub.snapshot_download(repository, allow_patterns=[format.CONFIG]))
    if not (directory / format.CONFIG).is_file() or "randfeat" not in format.read_config(directory):
        raise ValueError(
            f"{repository} on the hub holds no model of randfeat: expected what `Pipeline.push_to_hub` writes there"
        )
    with explained(repository, format.WEIGHTS):
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=[*FILES]))


def cached(repository: str, file: str) -> Path | None:
    """Return the path of a file in the cache of huggingface_hub, or None; never downloads."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def push(save: Callable[[Path], None], repository: str, private: bool | None, token: str | None) -> str:
    """Upload the model directory that `save` writes, with a model card, as one commit; return the address.

    The repository is created if need be. A README.md that it has already is kept: somebody may have edited it.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi(token=token)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "model"
        save(directory)
        with explained(repository, "the model"):
            address = api.create_repo(repository, private=private, exist_ok=True)
            if not api.file_exists(repository, model_card.CARD):
                model_card.write(directory, repository)
            api.upload_folder(repo_id=repository, folder_path=directory, commit_message="Upload a model of randfeat")
    return str(address)


@contextmanager
def explained(repository: str, what: str) -> Iterator[None]:
    """Turn any error of a call of huggingface_hub into one sentence, within seconds where the hub cannot be reached.

    what: the file that is transferred.

    The library raises its own errors and those of the HTTP library of its version, which have no common base class.
    """
    from huggingface_hub import errors

    try:
        with network.hub_or_cache():
            yield
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"{repository} asks for consent: accept its terms at https://huggingface.co/{repository} "
            "and log in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is neither a file or directory {repository} here nor a public repository of this name on the hub: "
            "check the name, or log in with `hf auth login` if it is private"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ConnectionError(
            f"{what} of {repository} is not in the cache and the hub could not be reached: check the connection, give "
            "the path of a copy, or set HF_HOME to a cache that has it (HF_HUB_OFFLINE, where set, must be unset)"
        ) from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(f"{repository} on the hub has no {what}: is it another repository?") from error
    except errors.HFValidationError as error:
        raise ValueError(f"{repository} is no id on the hub, expected owner/name: {_first_line(error)}") from error
    except errors.HfHubHTTPError as error:
        raise ConnectionError(f"the hub refused {what} of {repository}: {_first_line(error)}") from error
    except Exception as error:
        raise ConnectionError(
            f"{what} of {repository} could not be transferred ({type(error).__name__}: {_first_line(error)}): "
            "check the connection and the space on the disk"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
