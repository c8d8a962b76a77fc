"""What `docs/security.md` says: no file that is read runs code, and nothing listens."""

import ast
import pickle
from pathlib import Path

import keras
import numpy as np
import pytest

from augmix_tf.data import benchmark
from augmix_tf.errors import ArgumentError, FileError
from augmix_tf.evaluation import loaded

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = (ROOT / "main.py", ROOT / "flags.py", *sorted((ROOT / "augmix_tf").rglob("*.py")))

# Files of these kinds run what they hold; archives write where they like.
RUN_WHAT_THEY_HOLD = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "torch"}
UNPACK = {"tarfile", "zipfile", "unpack_archive"}
LISTEN = {"http.server", "socketserver", "wsgiref", "xmlrpc", "grpc", "asyncio"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "system",
    "popen",
    "bind",
    "listen",
    "create_server",
    "serve_forever",
    "unpack_archive",
    "enable_unsafe_deserialization",
}
# A keyword that may stand in a call only with this value.
DEMANDED = {"allow_pickle": False, "safe_mode": True, "shell": False}


def findings(source: str) -> list[str]:
    """What in a module's text is against `docs/security.md`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(alias.name for alias in node.names)]
        forbidden = RUN_WHAT_THEY_HOLD | UNPACK | LISTEN
        found += [name for name in names if {name, name.split(".")[0]} & forbidden]
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            found += [name] if name in FORBIDDEN_CALLS else []
            for keyword in node.keywords:
                wanted = DEMANDED.get(str(keyword.arg), keyword)
                if wanted is not keyword and getattr(keyword.value, "value", None) is not wanted:
                    found.append(f"{keyword.arg}={ast.unparse(keyword.value)}")
    return found


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("import pickle", ["pickle"]),
        ("from http.server import HTTPServer", ["http.server"]),
        ("np.load(p, allow_pickle=True)", ["allow_pickle=True"]),
        ("keras.models.load_model(p, safe_mode=False)", ["safe_mode=False"]),
        ("subprocess.run(c, shell=True)", ["shell=True"]),
        ("eval(text)", ["eval"]),
        ("np.load(p, allow_pickle=False); load_model(p, safe_mode=True); run(c)", []),
    ],
)
def test_the_search_finds_what_it_is_for(source, want):
    assert findings(source) == want


@pytest.mark.parametrize("path", PROGRAM, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_module_reads_what_runs_unpacks_archives_or_listens(path):
    assert findings(path.read_text(encoding="utf-8")) == []


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "it ran")


@pytest.fixture
def hostile_array(tmp_path):
    path = tmp_path / "fog.npy"
    np.save(path, np.array([Payload(tmp_path / "ran")], object), allow_pickle=True)
    yield path
    assert not (tmp_path / "ran").exists()
    # It does run where pickles are allowed: the test is one.
    np.load(path, allow_pickle=True)
    assert (tmp_path / "ran").exists()


def test_arrays_of_objects_are_not_unpickled(hostile_array):
    with pytest.raises(FileError, match=r"fog\.npy: expected images"):
        benchmark.open_array(hostile_array, "images", lambda array: True)


def test_a_pickle_in_place_of_an_array_is_not_run(tmp_path):
    path = tmp_path / "fog.npy"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(FileError, match=r"fog\.npy: expected images"):
        benchmark.open_array(path, "images", lambda array: True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_keras_file_with_code_in_it_is_refused(tmp_path, suffix):
    images = keras.Input((4, 5, 3))
    code = keras.layers.Lambda(lambda x: x[:, 0, 0, :], output_shape=(3,))
    path = tmp_path / f"model.{suffix}"
    keras.Model(images, code(images)).save(path)
    with pytest.raises(ArgumentError, match=r"[Ll]ambda"):
        loaded.load(path)
