"""The file that MLflow executes to load a registered version: code, safetensors and JSON only.

It travels inside every version beside a copy of `models/`, so it imports nothing else of the
project. Each row of a request asks for `num_samples` samples; parameters hold for all rows. A row
may name a label (image models) or a prompt (token models); what is missing is as the parameters
say. Versions state no schema of their rows to MLflow, which would drop unknown columns in silence,
and rows that name no known one: rows are read and checked here.
"""

import base64
import importlib
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import models
from models.text.decoding import DecodingConfig, generate
from models.text.tokenizer import readable, tokenizer_from_dict

MAX_SAMPLES, MAX_TOKENS = 10_000, 20_000
MAX_TOKENS_IN_ALL = 1_000_000
"""Samples and tokens that one request may ask for, all rows together."""
MAX_PROMPT_CHARACTERS = 100_000
MAX_CLASSES_TOLD = 20
READ_AS_MISSING = frozenset(
    [
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    ]
)
"""What `pandas.read_csv`, by which MLflow reads CSV before us, takes for no value."""


class SampleModel(PythonModel):
    """A trained generative model of any family that draws samples on request."""

    def load_context(self, context: PythonModelContext) -> None:
        """Rebuild the model from the version's files, and listen for unknown parameters."""
        self.restore({name: Path(path) for name, path in context.artifacts.items()})
        remarks = logging.getLogger("mlflow.models.utils")
        remarks.setLevel(logging.WARNING)  # whatever $MLFLOW_LOGGING_LEVEL says
        remarks.addFilter(self._refuse_unknown_parameters)

    def restore(self, paths: Mapping[str, Path]) -> None:
        """Rebuild the model from files by name: config, weights, and what its family needs."""
        record = _json(paths["config"])
        self.family: str = record["family"]
        self.config: dict[str, Any] = record["config"]
        self._code = importlib.import_module(f"{models.__name__}.{self.family}.serving")
        self.makes_images: bool = self._code.DATA == "images"
        tensors = load_file(paths["weights"])
        if self.makes_images:
            self.examples = load_file(paths["examples"])["examples"]  # (N, C, H, W) uint8
            self.class_names: list[str] = _json(paths["classes"]) if "classes" in paths else []
        else:
            self.tokenizer = tokenizer_from_dict(_json(paths["tokenizer"]))
            self.prompt: str = _json(paths["sampling"])["prompt"]
        self.model = self._code.build(self.config, tensors)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Samples for each row: PNG pictures in base64, or texts.

        model_input: what `rows_of` takes; MLflow warns of any other type hint.
        """
        given = self._parameters(params or {})
        requests = [{**given, **self._checked(row)} for row in rows_of(model_input, self._column)]
        self._check_work(len(requests), given)
        rows = []
        for index, request in enumerate(requests):
            for sample in self._samples(request):
                rows.append({"request": index, **sample})
        return pd.DataFrame(rows)

    def _parameters(self, params: dict[str, Any]) -> dict[str, Any]:
        """What holds for all rows; a class's name becomes its index."""
        given = {name: value for name, value in params.items() if value is not None}
        if name := given.pop("class_name", ""):
            if given.get("label", -1) != -1:
                raise _refused("label and class_name say the same: give one of them")
            given["label"] = name
        if "label" in given:
            given["label"] = self._index_of(given["label"])
        return given

    @property
    def _column(self) -> str:
        """What a row may name."""
        return "label" if self.makes_images else "prompt"

    @property
    def _known_parameters(self) -> tuple[str, ...]:
        return IMAGE_PARAMETERS if self.makes_images else TEXT_PARAMETERS

    def _checked(self, row: dict[Any, Any]) -> dict[str, Any]:
        """A row that can be answered; raises MLflow's error, which a server answers with 400."""
        for name in row:
            if name != self._column:
                is_known = name in self._known_parameters
                hint = f"; give {name!r} among the params" if is_known else ""
                raise _refused(
                    f"unknown column {name!r:.60}; this model knows {self._column!r}{hint}"
                )
        given = {name: value for name, value in row.items() if not _is_missing(value)}
        unclear = READ_AS_MISSING.intersection(self.class_names) if self._column == "label" else ()
        if row and not given and unclear:
            raise _refused(
                f"label is missing, and the class {min(unclear)!r} of this model is read as missing"
                " in CSV: name it in JSON, or by its index; -1 is any class"
            )
        if "label" in given:
            given["label"] = self._index_of(given["label"])
        if "prompt" in given:
            _check_prompt(given["prompt"])
        return given

    def _index_of(self, label: Any) -> int:
        """The index of a class, from its name or index; -1, for any, is one too."""
        count = len(self.class_names) or int(self.config.get("num_classes", 0))
        told = [f"{name!r}" for name in self.class_names[:MAX_CLASSES_TOLD]]
        told += [f"and {count - len(told)} more"] if count > len(told) > 0 else []
        known = f"the classes {', '.join(told)}, or their indices" if told else "indices"
        known = f"this model knows {known} from 0 to {count - 1}; -1 is any of them"
        if not count:
            known = "this model knows no classes: leave it out"
        if isinstance(label, str) and label in self.class_names:
            return self.class_names.index(label)
        is_number = isinstance(label, int | float) and not isinstance(label, bool)
        if not is_number or label % 1 != 0 or not -1 <= label < count:
            raise _refused(f"label {label!r:.60} is not known; {known}")
        return int(label)

    def _check_work(self, num_requests: int, given: dict[str, Any]) -> None:
        """Refuse what would keep a server busy for hours, before anything is drawn."""
        num_samples = num_requests * int(given.get("num_samples", 1))
        _check_range("num_samples over all rows", num_samples, 1, MAX_SAMPLES)
        if not self.makes_images:
            num_tokens = num_samples * int(given.get("num_tokens", 200))
            _check_range("num_tokens over all samples", num_tokens, 1, MAX_TOKENS_IN_ALL)

    def _refuse_unknown_parameters(self, record: logging.LogRecord) -> bool:
        """Turn MLflow's remark on a parameter that this model does not know into an error.

        MLflow drops unknown parameters before they reach `predict`, and says so in its log only:
        a misspelt "temprature" would be answered as if nothing had been asked. Remarks on other
        models' parameters pass; they name other ones as supported.
        """
        remark = record.getMessage()
        ours = self._known_parameters
        if remark.startswith("Unrecognized params") and all(f"'{name}'" in remark for name in ours):
            unknown = remark.removeprefix("Unrecognized params ").partition(" are ignored")[0]
            raise mlflow.exceptions.MlflowException.invalid_parameter_value(
                f"unknown parameters {unknown}; this model knows {', '.join(ours)}"
            )
        return True

    def _samples(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        num_samples, seed = int(asked.get("num_samples", 1)), int(asked.get("seed", 0))
        temperature = float(asked.get("temperature", 1.0))
        if self.makes_images:
            drawn = self.draw_images(num_samples, seed, temperature, asked.get("label", -1))
            return [{"png_base64": _png_base64(picture)} for picture in drawn]
        texts = self.write_texts(
            num_samples,
            seed,
            temperature,
            top_k=int(asked.get("top_k", 0)),
            top_p=float(asked.get("top_p", 1.0)),
            min_p=float(asked.get("min_p", 0.0)),
            prompt=str(asked.get("prompt", "")),
            num_tokens=int(asked.get("num_tokens", 200)),
        )
        return [{"text": text} for text in texts]

    def draw_images(
        self, num_samples: int, seed: int = 0, temperature: float = 1.0, label: int | str = -1
    ) -> np.ndarray:
        """New images, (N, C, H, W) uint8.

        label: a class's index or name; -1 lets a conditional model vary it.
        """
        index = self._index_of(label)
        _check_range("num_samples", num_samples, 1, MAX_SAMPLES)
        _check_range("seed", seed, 0, 2**31 - 1)
        _check_range("temperature", temperature, 0.01, 10.0)
        labels = None if index < 0 else torch.full((num_samples,), index)
        return _bytes_of(self.draw(num_samples, seed, temperature, labels))

    def draw(
        self,
        num_samples: int,
        seed: int = 0,
        temperature: float = 1.0,
        labels: Tensor | None = None,
    ) -> Tensor:
        """New images (N, C, H, W) in [0, 1], unchecked; labels: (N,) int64, of classes."""
        drawn: Tensor = self._code.draw(self.model, num_samples, seed, temperature, labels)
        return drawn

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Images (N, C, H, W) uint8 through the latent point and back, where the model has one."""
        return _bytes_of(self.model.reconstruct(torch.from_numpy(images).float() / 255))

    def interpolate(self, first: np.ndarray, last: np.ndarray, num_steps: int) -> np.ndarray:
        """The images on the way between two, each (C, H, W) uint8, as above."""
        ends = [torch.from_numpy(image).float() / 255 for image in (first, last)]
        return _bytes_of(self.model.interpolate(*ends, num_steps))

    def write_texts(
        self,
        num_samples: int,
        seed: int = 0,
        temperature: float = 1.0,
        *,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        prompt: str = "",
        num_tokens: int = 200,
    ) -> list[str]:
        """Continuations of a prompt, without the prompt; an empty one takes the version's own."""
        _check_range("num_samples", num_samples, 1, MAX_SAMPLES)
        _check_range("num_tokens", num_tokens, 1, MAX_TOKENS)
        _check_range("seed", seed, 0, 2**31 - 1)
        _check_range("temperature", temperature, 0.01, 10.0)
        _check_range("top_k", top_k, 0, self.model.vocabulary_size)
        _check_range("top_p", top_p, 0.01, 1.0)
        _check_range("min_p", min_p, 0.0, 1.0)
        ids = self.tokenizer.encode(prompt or self.prompt).astype("int64")
        tokens = generate(
            self.model,
            torch.from_numpy(ids),
            num_tokens=num_tokens,
            num_sequences=num_samples,
            config=DecodingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p),
            seed=seed,
        )
        return [readable(self.tokenizer.decode(row)) for row in tokens.tolist()]


FILTERS = ("top_k", "top_p", "min_p")
IMAGE_PARAMETERS = ("num_samples", "seed", "temperature", "label", "class_name")
TEXT_PARAMETERS = ("num_samples", "seed", "temperature", *FILTERS, "prompt", "num_tokens")
"""What a request may ask; `tasks/packaging/package.py` states the types."""


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows_of(asked: Any, column: str) -> list[dict[Any, Any]]:
    """The rows of a request, in whatever form MLflow hands it over; missing values stay in.

    A DataFrame; a list of rows; columns, each a list; or bare values, of the one column. Raises
    MLflow's error for none at all, and for columns of different lengths or of one name.
    """
    if isinstance(asked, pd.DataFrame):
        if not asked.columns.is_unique:
            raise _refused(f"two columns have one name: {[*asked.columns]}")
        values = [asked[name].tolist() for name in asked.columns]
        rows = [
            dict(zip(asked.columns, (_plain(value[row]) for value in values), strict=True))
            for row in range(len(asked))
        ]
    elif isinstance(asked, dict):
        rows = _rows_of_columns({name: _plain(value) for name, value in asked.items()})
    else:
        bare = _plain(asked)
        rows = [
            {name: _plain(value) for name, value in each.items()}
            if isinstance(each, dict)
            else {column: _plain(each)}
            for each in (bare if isinstance(bare, list) else [bare])
        ]
    if not rows:
        raise _refused("a request wants at least one row; [{}] asks for one with the defaults")
    return rows


def _rows_of_columns(columns: dict[Any, Any]) -> list[dict[Any, Any]]:
    lengths = {len(value) if isinstance(value, list) else -1 for value in columns.values()}
    if len(lengths) > 1:
        raise _refused(f"the columns {[*columns]} have different lengths")
    if lengths <= {-1}:  # one row, perhaps without a column
        return [columns]
    (length,) = lengths
    return [{name: value[row] for name, value in columns.items()} for row in range(length)]


def _plain(value: Any) -> Any:
    """NumPy's and pandas' values as Python's own."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic | pd.Series) else value


def _is_missing(value: Any) -> bool:
    """A null; a DataFrame has NaN where another row has a value."""
    return value is None or value is pd.NA or value is pd.NaT or value != value  # noqa: PLR0124


def _check_prompt(prompt: Any) -> None:
    if not isinstance(prompt, str):
        raise _refused(f"prompt is text, got {type(prompt).__name__} {prompt!r:.60}")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise _refused(
            f"prompt is {len(prompt)} characters long, wanted {MAX_PROMPT_CHARACTERS} at most"
        )
    if not prompt.isascii() and any("\ud800" <= character <= "\udfff" for character in prompt):
        raise _refused("prompt holds half of a surrogate pair, which is no character")


def _refused(message: str) -> Exception:
    refusal: Exception = mlflow.exceptions.MlflowException.invalid_parameter_value(message)
    return refusal


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise _refused(f"{name} must lie between {low} and {high}, got {value}")


def _bytes_of(images: Tensor) -> np.ndarray:
    array: np.ndarray = (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return array


def _png_base64(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


mlflow.models.set_model(SampleModel())
