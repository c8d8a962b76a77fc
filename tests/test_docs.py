"""What the documentation shows holds: commands, Python, examples in docstrings, links.

Commands of the program are parsed by its own flags, those of scripts held against their parsers,
and Python is run. Whoever adds a name that a piece of Python takes for granted adds it here.
"""

import ast
import contextlib
import doctest
import importlib
import io
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import pytest
from absl import flags as absl_flags

import flags
from augmix_tf import models, recipes
from augmix_tf.errors import ArgumentError
from tests import tiny_models

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Flags of other programs that the text names.
FOREIGN = {"decay", "droprate", "evaluate", "layers", "momentum", "pretrained", "resume", "save"}
FOREIGN |= {"xla_cpu_prefer_vector_width", "xla_disable_hlo_passes"}
FOREIGN |= {"model_config_file", "model_config_file_poll_wait_seconds", "monitoring_config_file"}
# Runs that the pages evaluate, and their datasets: some flags apply to images of varying size only.
RUNS = {"runs/imagenet": "imagenet2012", "runs/augmix": "imagenet2012"}


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Language and lines of every fenced block, and of every indented one."""
    fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    for language, inside in fenced.findall(text):
        yield language, inside.splitlines()
    indented = re.compile(r"(?<=\n\n)(?: {4}.*\n)+")
    for inside in indented.findall(fenced.sub("", text)):
        yield "", [line[4:] for line in inside.splitlines()]


def commands(path: Path) -> list[list[str]]:
    """The words of each command of Python and its tools on a page, loops unrolled."""
    found = []
    for language, lines in blocks(path.read_text(encoding="utf-8")):
        if language not in ("", "bash", "sh"):
            continue
        entered = [line[2:] for line in lines if line.startswith("$ ")]
        for line in unrolled(iter(logical_lines(entered or lines))):
            if re.search(r"\b(python3?|pip|pytest) ", line):
                found += split(line)
    return found


def logical_lines(lines: Sequence[str]) -> list[str]:
    """Lines with those joined that a backslash continues."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def unrolled(lines: Iterator[str]) -> list[str]:
    """What `for name in a b; do`, ..., `done` stands for."""
    found: list[str] = []
    for line in lines:
        if line == "done":
            break
        loop = re.fullmatch(r"for (\w+) in (.*); do", line)
        if loop is None:
            found.append(line)
            continue
        name, inside = re.compile(rf"\${loop[1]}\b"), unrolled(lines)
        for value, inner in itertools.product(loop[2].split(), inside):
            found.append(name.sub(value, inner))
    return found


def split(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, without comments and variables set in front."""
    words = shlex.split(line, comments=True)
    for separator, group in itertools.groupby(words, key=lambda word: word == "&&"):
        command = list(itertools.dropwhile(lambda word: re.match(r"\w+=", word), group))
        if command and not separator:
            yield command


def check(command: Sequence[str]) -> None:
    """Passes for a command that the program it names would take."""
    program, *arguments = command
    named = [name for name in arguments if re.fullmatch(r"[\w/-]+\.(py|txt)", name)]
    assert [name for name in named if not (ROOT / name).is_file()] == []
    if not program.startswith("python"):
        return
    if arguments[0] == "main.py":
        flags.parse(arguments[1:])
    elif arguments[0] == "-c":
        compile(arguments[1], "python -c", "exec")
    elif arguments[0] != "-m":
        check_script(ROOT / arguments[0], arguments[1:])
    elif arguments[1].startswith("benchmarks."):
        check_script(ROOT / f"{arguments[1].replace('.', '/')}.py", arguments[2:])


def declared_by(path: Path) -> set[str]:
    """The arguments that a script's parser has, without importing it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "attr", "")
        if called == "add_argument" and isinstance(node.args[0], ast.Constant):
            names.add(node.args[0].value)
        elif called == "arguments":  # of `benchmarks.measure`
            names |= {"--json", *(f"--{keyword.arg}" for keyword in node.keywords)}
    return names


def check_script(path: Path, arguments: list[str]) -> None:
    """Holds the arguments against the script's parser, or against its `main`."""
    assert path.is_relative_to(ROOT / "benchmarks") or path.is_relative_to(ROOT / "examples")
    declared = declared_by(path)
    given = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    assert set(given) <= declared, f"{path.name} has {sorted(declared)}"
    positional = len([name for name in declared if not name.startswith("-")])
    if not declared:
        functions = (n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef))
        positional = len(next(f for f in functions if f.name == "main").args.args)
    assert len(arguments) - len(given) <= positional, path.name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_would_be_taken(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, dataset in RUNS.items():
        Path(folder).mkdir(parents=True)
        Path(folder, "config.json").write_text(recipes.recipe(dataset).to_json())
    wrong = []
    for command in commands(path):
        try:
            check(command)
        except Exception as error:
            wrong.append(f"{shlex.join(command)}: {type(error).__name__}: {error}")
    assert wrong == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_flag_in_the_text_is_there(path):
    """Those with a hyphen are of others: all of ours have underscores."""
    values = absl_flags.FlagValues()
    flags.define(values)
    known = set(values) | {f"no{name}" for name in values} | FOREIGN
    for folder in ("benchmarks", "examples"):
        for script in (ROOT / folder).glob("*.py"):
            known |= {name.removeprefix("--") for name in declared_by(script)}
    spans = re.findall(r"`([^`\n]+)`", path.read_text(encoding="utf-8"))
    named = {flag for span in spans for flag in re.findall(r"(?<![\w-])--([\w-]+)", span)}
    assert {name for name in named if "-" not in name} <= known


def test_the_commands_of_the_pages_are_found():
    page = {path.name: commands(path) for path in PAGES}
    assert any(words[1] == "main.py" for words in page["README.md"])
    cells = [words for words in page["reproducing.md"] if "--corrupted_dir=CIFAR-100-C" in words]
    assert len({tuple(words) for words in cells}) == 4 * 7
    workers = [words for words in page["reliability.md"] if "--workdir=/shared/run" in words]
    assert [words[:2] for words in workers] == [["python", "main.py"]]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("python main.py --modle=wrn", ArgumentError),
        ("python main.py --method=augmix --views=1", ArgumentError),
        ("python -m benchmarks.step --rouns=3", AssertionError),
        ("python examples/own_images.py mine 1 2", AssertionError),
        ("pip install -r requirement.txt", AssertionError),
    ],
)
def test_a_command_that_would_not_be_taken_is_found(line, error):
    [command] = split(line)
    with pytest.raises(error):
        check(command)


def snippets() -> list[tuple[str, str]]:
    """Those of the README are run below, clients (`py`) by their own tests."""
    return [
        (path.name, "\n".join(lines))
        for path in PAGES[1:]
        for language, lines in blocks(path.read_text(encoding="utf-8"))
        if language == "python"
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the files that the pages' Python reads."""
    folder = tmp_path_factory.mktemp("snippets")
    network = models.build("wrn", num_classes=10, depth=10, widen_factor=1, seed=3)
    np.savez(folder / "wrn.npz", **tiny_models.torch_state(network))
    return folder


def names() -> dict[str, object]:
    """What the pages' Python takes for granted."""
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (8, 20, 24, 3), np.uint8),
        "labels": np.arange(8) % 3,
        "logits": rng.normal(size=(8, 3)),
        "predict": lambda images: images.mean(axis=(1, 2)),
        "DEPTH": 10,
        "WIDTH": 1,
    }


@pytest.mark.parametrize(
    ("page", "code"), snippets(), ids=[f"{page}-{i}" for i, (page, _) in enumerate(snippets())]
)
def test_python_on_the_pages_runs_and_prints_what_it_says(page, code, place, monkeypatch):
    monkeypatch.chdir(place)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, page, "exec"), names())
    promised = re.findall(r"^\s*print\(.*\)  # (.+)$", code, re.MULTILINE)
    if promised:
        assert said.getvalue().splitlines() == promised


def test_weights_come_out_as_the_pages_say(place, monkeypatch):
    """After the Python above: the program takes the file that it wrote."""
    monkeypatch.chdir(place)
    for _, code in snippets():
        if "wrn.keras" in code:
            exec(compile(code, "page", "exec"), names())
    loaded = keras.models.load_model("wrn.keras")
    network = models.build("wrn", num_classes=10, depth=10, widen_factor=1, seed=3)
    pictures = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(loaded(pictures), network(pictures / 127.5 - 1), atol=1e-4)


WITH_EXAMPLES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
    for path in (ROOT / "augmix_tf").rglob("*.py")
    if ">>> " in path.read_text()
)
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_give_what_they_show(name):
    module = importlib.import_module(name)
    globals_of_readers = {"np": np, "tf": importlib.import_module("tensorflow")}
    failed, tried = doctest.testmod(module, extraglobs=globals_of_readers)
    assert tried > 0
    assert failed == 0


def test_the_readme_s_python_trains_a_classifier_on_three_views(tmp_path, monkeypatch):
    assert SNIPPETS
    stack = [keras.Input((20, 24, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    for name in "abc":
        (tmp_path / "photos" / name).mkdir(parents=True)
        image = np.full((30, 20, 3), ord(name), np.uint8)
        keras.utils.save_img(tmp_path / "photos" / name / "1.jpg", image)
    monkeypatch.chdir(tmp_path)
    scope = {
        "images": np.random.default_rng(0).integers(0, 256, (256, 20, 24, 3), np.uint8),
        "labels": np.arange(256) % 3,
        "backbone": keras.Sequential([*stack, keras.layers.Dense(3)]),
    }
    for snippet in SNIPPETS:
        exec(compile(snippet.replace("(224, 224)", "(20, 24)"), "README.md", "exec"), scope)
    made = list(scope["dataset"])
    assert [views.shape for views, _ in made] == [(128, 3, 20, 24, 3)] * 20
    known = {image.tobytes() for image in scope["images"].astype(np.float32)}
    assert all(views.numpy()[0, 0].tobytes() in known for views, _ in made)
    # Each pass over the images has draws of its own.
    assert len({views.numpy()[:, 1].std() for views, _ in made}) == 20


@pytest.mark.parametrize("path", sorted({*PAGES, *ROOT.glob("*.md")}), ids=lambda path: path.name)
def test_what_a_page_links_to_is_there(path):
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    local = [target for target in targets if not re.match(r"https?://|mailto:|#", target)]
    missing = [t for t in local if not (path.parent / t.partition("#")[0]).exists()]
    assert missing == []
    for target in targets:
        page, _, anchor = target.partition("#")
        if anchor and (not page or target in local):
            assert anchor in headings(path.parent / page if page else path), target


def headings(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
