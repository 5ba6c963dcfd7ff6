"""The weights with which a training begins where it continues from a version: an input of its fit.

Optimiser, schedule and step begin anew; only networks are taken over. What a version needs no more,
such as a discriminator, a fit keeps in a file beside its content, for whoever continues from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save
from torch import Tensor, nn

from tasks.store.files import BadInput, atomic_file
from tasks.training.parent import Parent

if TYPE_CHECKING:
    from models.training.checkpoint import TrainingState

BESIDE = "beside.safetensors"
"""In the folder of a fit: networks that are no part of its content, nor of any version."""
_BETWEEN = "/"


@dataclass(frozen=True, kw_only=True, slots=True)
class InitialWeights:
    """Receipt of a version's files, verified, from which a fit continues."""

    parent: Parent
    family: str
    model: dict[str, Any]
    """Its configuration, by field."""
    folder: str
    """Where its files lie now."""

    @property
    def weights_path(self) -> Path:
        """The networks of the version."""
        return Path(self.folder) / "weights.safetensors"

    @property
    def tokenizer_path(self) -> Path:
        """Its vocabulary, where it has one."""
        return Path(self.folder) / "tokenizer.json"

    @property
    def classes_path(self) -> Path:
        """The names of its classes, where it knows any."""
        return Path(self.folder) / "classes.json"

    def load(self, state: "TrainingState", continued: Sequence[str]) -> None:
        """Let a training's networks begin here.

        continued: the modules of its state that begin with the version's weights; those that were
        kept beside them bear their own names. Raises BadInput where shapes do not fit.
        """
        weights = load_file(self.weights_path)
        for name in continued:
            _load(state, name, weights, self.parent)
        if self.parent.beside:
            beside = load_file(Path(self.folder) / BESIDE)
            for name in sorted({key.partition(_BETWEEN)[0] for key in beside}):
                own = {k.partition(_BETWEEN)[2]: v for k, v in beside.items() if _is_of(k, name)}
                _load(state, name, own, self.parent)


def keep_beside(state: "TrainingState", names: Sequence[str], folder: Path) -> None:
    """Write modules of a training's state beside what its fit keeps."""
    tensors = {
        f"{name}{_BETWEEN}{key}": value.detach().cpu().contiguous()
        for name in names
        for key, value in _module(state, name).state_dict().items()
    }
    if tensors:
        with atomic_file(folder / BESIDE) as temporary:
            temporary.write_bytes(save(tensors))


def _load(state: "TrainingState", name: str, weights: Mapping[str, Tensor], parent: Parent) -> None:
    try:
        _module(state, name).load_state_dict(dict(weights))
    except RuntimeError as error:  # PyTorch tells of names and shapes over many lines
        told = " ".join(str(error).split())
        raise BadInput(f"the weights of {parent} do not fit this training: {told:.300}") from error


def _module(state: "TrainingState", name: str) -> nn.Module:
    """A module of a state, or a part of one by a dot."""
    first, _, part = name.partition(".")
    return state.modules[first].get_submodule(part)


def _is_of(key: str, name: str) -> bool:
    return key.partition(_BETWEEN)[0] == name
