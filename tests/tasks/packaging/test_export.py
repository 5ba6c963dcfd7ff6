"""An exported version, run where this project and its libraries are not."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from models.text.tokenizer import BpeTokenizer, CharacterTokenizer
from tasks.families.table import FAMILIES
from tasks.packaging.bundled_code import code_files, package_name
from tasks.packaging.export import write_export
from tasks.packaging.exported.export_tensors import SeedSequence, read_tensors
from tasks.packaging.exported.export_tokens import Tokens
from tasks.packaging.exported.load_images import png
from tasks.packaging.files import PackageChanged
from tasks.packaging.served_model import SampleModel
from tasks.store.files import BadInput
from tests.tasks.samples.untrained import GREEK, IMAGES, TEXT, untrained_files

FACTS = {"model": "tale", "version": 3, "digest": "d" * 64}
RUN = """
import importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
told = {}
for request in json.loads(sys.argv[2]):
    where = importlib.util.spec_from_file_location("load_" + request["family"], request["loader"])
    code = importlib.util.module_from_spec(where)
    where.loader.exec_module(code)
    model = code.load()
    options = request["options"]
    made = model.draw(**options).tolist() if request["images"] else model.write(**options)
    told[request["family"]] = made
there = []
for name in ("numpy", "safetensors", "tokenizers", "pandas", "mlflow", "prefect", "PIL",
             "atelier", "flows", "tasks", "models", "torch"):
    try:
        __import__(name)
        there.append(name)
    except ImportError:
        pass
print(json.dumps([told, there]))
"""
Exported = Callable[[str, Path], Path]


def exported(family: str, folder: Path, tokenizer: str = "bpe") -> tuple[Path, SampleModel]:
    """An untrained model's export, and the model itself."""
    package = folder / "package"
    paths = untrained_files(family, package / "artifacts", tokenizer)
    for name, content in code_files().items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(content)
    (package / "requirements.txt").write_text("mlflow==3\ntorch==2.0\n")
    record = FAMILIES[family]
    write_export(package, folder / "export", record.loader or f"load_{record.data}", FACTS)
    model = SampleModel()
    model.restore(paths)
    return folder / "export", model


def library_folder(folder: Path, library: str) -> Path:
    """A folder that holds a library and what it needs, and nothing else."""
    waiting, seen = [library], set()
    folder.mkdir()
    while waiting:
        name = re.split(r"[ ;<>=!~\[(]", waiting.pop())[0].lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another system
        waiting += [each for each in found.requires or [] if "extra ==" not in each]
        for top in {str(file).partition("/")[0] for file in found.files or []}:
            source = Path(str(found.locate_file(top)))
            is_new = source.exists() and not (folder / top).exists()
            if is_new and not top.startswith(("..", "__pycache__")):
                (folder / top).symlink_to(source)
    return folder


def _asked(family: str) -> dict[str, Any]:
    if family in IMAGES:
        label = "dog" if family == "gan" else None
        return {"number": 7, "seed": 3, "temperature": 0.9, "label": label}
    filters = {"temperature": 0.9, "top_k": 50, "top_p": 0.9}
    return {"prompt": "ὁ λόγ", "num_tokens": 60, "seed": 4, **filters}


def run_alone(libraries: Path, exports: dict[str, Path]) -> tuple[dict[str, Any], list[str]]:
    """What each export gives in a process that finds these libraries only; which it finds."""
    requests = [
        {
            "family": family,
            "loader": str(folder / "load.py"),
            "images": family in IMAGES,
            "options": _asked(family),
        }
        for family, folder in exports.items()
    ]
    done = subprocess.run(
        [*(sys.executable, "-I", "-S", "-c", RUN), str(libraries), json.dumps(requests)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={},
    )
    assert done.returncode == 0, done.stderr
    told, there = json.loads(done.stdout)
    return told, there


def imported_by(path: Path) -> set[str]:
    """The packages that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def written_by(model: SampleModel) -> str:
    (text,) = model.write_texts(1, 4, 0.9, top_k=50, top_p=0.9, prompt="ὁ λόγ", num_tokens=60)
    return text


@pytest.mark.slow
def test_pytorch_alone_gives_the_same_samples(tmp_path: Path) -> None:
    """All in one process: each brings modules of its own."""
    made = {family: exported(family, tmp_path / family) for family in (*IMAGES, "gpt")}
    libraries = library_folder(tmp_path / "libraries", "torch")

    told, there = run_alone(libraries, {family: folder for family, (folder, _) in made.items()})

    assert there == ["torch"]
    for family in IMAGES:
        drawn = made[family][1].draw_images(7, 3, 0.9, "dog" if family == "gan" else -1)
        np.testing.assert_array_equal(np.array(told[family]), drawn)
    assert told["gpt"] == written_by(made["gpt"][1])


@pytest.mark.parametrize("tokenizer", ["bpe", "characters"])
def test_numpy_alone_gives_the_same_text_of_counts(tokenizer: str, tmp_path: Path) -> None:
    folder, model = exported("ngram", tmp_path, tokenizer)
    libraries = library_folder(tmp_path / "libraries", "numpy")

    told, there = run_alone(libraries, {"ngram": folder})

    assert there == ["numpy"]
    assert told["ngram"] == written_by(model)


@pytest.mark.parametrize("family", [*IMAGES, *TEXT])
def test_an_export_holds_what_it_needs_and_no_pickle(
    family: str, tmp_path: Path, scan_for_pickles: Callable[[Path], tuple[int, list[Path]]]
) -> None:
    folder, model = exported(family, tmp_path)
    facts = json.loads((folder / "export.json").read_text())
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    expected = {"README.md", "config.json", "load.py", "export.json"}
    expected |= {"tables.npz"} if family == "ngram" else {"weights.safetensors"}
    if family in TEXT:
        expected |= {"tokenizer.json", "vocabulary.json", "sampling.json"}
    else:
        expected |= {"classes.json"}
    own = {name for name in files if name.startswith(facts["package"])}
    assert expected == {name for name in files - own if not name.startswith("export_")}
    assert f"{facts['package']}/{family}/model.py" in own or family in ("gan", "diffusion")
    assert not [name for name in own if f"/{family}/training" in name]  # what draws needs no more
    assert set(facts["sha256"]) == files - {"export.json"}
    assert facts.items() >= {**FACTS, "family": family, "trained_with": ["torch==2.0"]}.items()
    assert json.loads((folder / "config.json").read_text()).keys() == model.config.keys()
    assert "tale, version 3" in (folder / "README.md").read_text()
    for path in folder.rglob("*.py"):
        assert not imported_by(path) & {"atelier", "flows", "tasks", "models", package_name()}, path
    _, pickles = scan_for_pickles(folder)
    assert pickles == []


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "mine").write_text("mine")

    with pytest.raises(BadInput, match="such as mine"):
        exported("vae", tmp_path)
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["mine"]


def test_a_version_without_code_is_refused(tmp_path: Path) -> None:
    untrained_files("vae", tmp_path / "artifacts")

    with pytest.raises(PackageChanged, match="0 packages of code"):
        write_export(tmp_path, tmp_path / "export", "load_images", FACTS)


def test_a_version_of_before_whose_code_is_called_models_is_exported_too(tmp_path: Path) -> None:
    package = tmp_path / "package"
    untrained_files("ngram", package / "artifacts")
    (package / "requirements.txt").write_text("torch==2.0\n")
    for name, content in code_files().items():
        path = package / name.replace(package_name(), "models")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.replace(package_name().encode(), b"models"))

    write_export(package, tmp_path / "export", "load_counts", FACTS)

    libraries = library_folder(tmp_path / "libraries", "numpy")
    told, _ = run_alone(libraries, {"ngram": tmp_path / "export"})
    assert len(told["ngram"]) > 10


def test_weights_are_read_as_they_were_written(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.tensor(7),
        "c": torch.empty(0, 3, dtype=torch.int32),
        "d": torch.randn(5).bfloat16(),
        "e": torch.tensor([True, False]),
        "f": torch.randn(2).double(),
    }
    save_file(tensors, tmp_path / "weights.safetensors", metadata={"some": "note"})

    found = read_tensors(tmp_path / "weights.safetensors")

    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


@given(st.lists(st.integers(0, 2**100), min_size=1, max_size=6))
def test_seeds_are_mixed_as_numpy_mixes_them(numbers: list[int]) -> None:
    expected = np.random.SeedSequence(numbers).generate_state(3, np.uint64).tolist()

    assert SeedSequence(numbers).generate_state(3, "uint64") == expected


TEXTS = st.text() | st.text(
    alphabet="ab 1'²½Ⅷ٣\u00a0\u200b\u3000\n\t\r\x1c\x85λ🦉stlrevdm.,!_-\u0301"
)
BPE = BpeTokenizer.fit(GREEK + "we'll see 12 don't  blanks\n\n and more more more " * 5, 400)
CHARACTERS = CharacterTokenizer.fit("abc λό🦉\n")


@pytest.mark.parametrize("tokenizer", [BPE, CHARACTERS], ids=["bpe", "characters"])
@given(text=TEXTS)
def test_text_becomes_the_same_tokens_without_the_library(
    tokenizer: BpeTokenizer | CharacterTokenizer, text: str
) -> None:
    tokens = Tokens(json.loads(json.dumps(tokenizer.to_dict())))

    assert tokens.encode(text) == tokenizer.encode(text).tolist()
    assert tokens.decode(tokens.encode(text)) == text


@pytest.mark.parametrize("tokenizer", [BPE, CHARACTERS], ids=["bpe", "characters"])
@given(text=TEXTS)
def test_hugging_faces_library_reads_the_tokenizer(
    tokenizer: BpeTokenizer | CharacterTokenizer, text: str
) -> None:
    library = tokenizers.Tokenizer.from_str(str(tokenizer.to_hugging_face()))

    assert library.encode(text).ids == tokenizer.encode(text).tolist()
    assert library.decode(library.encode(text).ids) == text


def test_an_alphabet_with_half_a_pair_has_no_file_for_that_library() -> None:
    assert CharacterTokenizer.fit("a\ud83e").to_hugging_face() is None


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_written_as_png(channels: int, tmp_path: Path) -> None:
    import torch
    from PIL import Image

    picture = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    (tmp_path / "picture.png").write_bytes(png(picture))

    found = np.asarray(Image.open(tmp_path / "picture.png")).reshape(5, 7, channels)
    np.testing.assert_array_equal(found, picture.permute(1, 2, 0).numpy())
