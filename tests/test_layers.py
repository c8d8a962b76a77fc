"""Rules for the whole tree: which module imports which, lengths, packaging and `BUILD`."""

import ast
import functools
import graphlib
import itertools
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.processes import python

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "augmix_tf"

LONGEST_FUNCTION = 60
LONGEST_MODULE = 500
# Parts of the program that may import the configuration of an experiment.
KNOW_CONFIGURATIONS = {"config", "recipes", "request", "workdir", "report", "commands", "flags"}

# Where the distribution that brings a module has another name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "cv2": "opencv-python-headless",
    "keras": "tensorflow",
    "tensorflow_datasets": "tensorflow-datasets",
}
# Imported by TensorFlow and TFDS, which do not declare them.
UNDECLARED = {"importlib_resources", "tensorboard"}
# They read the complete checkout, of which a Bazel sandbox holds only a part.
NOT_IN_BUILD = {"test_layers", "test_security"}


def read_build() -> tuple[list[list[str]], dict[str, dict]]:
    """Layers and targets (name -> arguments) of BUILD, which is run as the Python it nearly is."""
    targets: dict[str, dict] = {}

    def rule(name: str, **arguments: object) -> None:
        assert name not in targets, f"two targets {name}"
        targets[name] = arguments

    def files(patterns: Iterable[str]) -> set[str]:
        # To Bazel a final `**` matches files, to pathlib before Python 3.13 directories only.
        paths = (p for pattern in patterns for p in ROOT.glob(re.sub(r"\*\*$", "**/*", pattern)))
        return {path.relative_to(ROOT).as_posix() for path in paths if path.is_file()}

    def glob(include: list[str], exclude: Iterable[str] = (), **_: object) -> list[str]:
        return sorted(files(include) - files(exclude))

    rules = dict.fromkeys(("py_library", "py_binary", "py_test", "genrule"), rule)
    others = ("load", "package", "licenses", "exports_files")
    names = rules | dict.fromkeys(others, lambda *_, **__: None) | {"glob": glob}
    exec((ROOT / "BUILD").read_text(encoding="utf-8"), names)
    return names["LAYERS"], targets


LAYERS, TARGETS = read_build()
LAYERS = [*LAYERS, ["flags"], ["main"]]
# A part is a module or subpackage right under augmix_tf, or a program.
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for path in (
        ROOT / "main.py",
        ROOT / "flags.py",
        *(ROOT / PACKAGE).rglob("*.py"),
        *(ROOT / "tests").rglob("*.py"),
    )
    if "addons" not in path.parts  # for an environment of their own
}
PROGRAM = sorted(name for name in MODULES if name.split(".")[0] != "tests")


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str) -> frozenset[str]:
    """All imports of a module, at any depth: our modules by name, others by top level."""
    names = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in members}
    ours = names & set(MODULES)
    others = {name.split(".")[0] for name in names - ours}
    return frozenset(ours | others - sys.stdlib_module_names - {"__future__"})


def part(module: str) -> str:
    """`augmix_tf.ops.geometric` -> `ops`, `flags` -> `flags`, the package's own file -> ``."""
    names = module.split(".")
    return ".".join(names[1:2]) if names[0] == PACKAGE else names[0]


def part_imports(module: str) -> set[str]:
    """Other parts that a module imports; the package's own file, with the version, is none."""
    ours = {part(name) for name in imports(module) if name in MODULES}
    return ours - {part(module), ""}


def third_party(module: str) -> set[str]:
    return {name for name in imports(module) if name not in MODULES}


def test_every_module_is_in_exactly_one_layer():
    repeated = {name: n for name, n in Counter(itertools.chain(*LAYERS)).items() if n > 1}
    parts = {part(module) for module in PROGRAM} - {""}
    assert repeated == {}
    assert parts - set(LAYER) == set(), "in no layer of BUILD"
    assert set(LAYER) - parts == set(), "in BUILD, but not in the tree"


def test_a_module_imports_lower_layers_and_its_own_subpackage_only():
    wrong = [
        f"{module} imports {other}"
        for module in PROGRAM
        if module != PACKAGE  # its own file imports on demand only
        for other in sorted(part_imports(module))
        if LAYER.get(other, len(LAYERS)) >= LAYER.get(part(module), -1)
    ]
    assert not wrong


def test_there_is_no_cycle_of_imports():
    # The package's own file imports on demand only.
    modules = set(PROGRAM) - {PACKAGE}
    graph = {module: imports(module) & modules - {module} for module in modules}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_main_imports_the_flags_and_nothing_imports_main():
    importers = {module for module in PROGRAM if imports(module) & {"flags", "main"}}
    assert importers == {"main"}
    assert "main" not in imports("main")


def test_only_the_command_line_and_what_records_runs_know_configurations():
    importers = {part(m) for m in PROGRAM if {"config", "recipes"} & part_imports(m)}
    assert importers - KNOW_CONFIGURATIONS == set()


@pytest.mark.parametrize("name", ["ops", "losses"])
def test_operations_and_losses_run_beside_tensorflow_addons(name):
    for module in PROGRAM:
        if part(module) == name:
            assert third_party(module) <= {"tensorflow", "numpy", "absl"}, module


@pytest.mark.parametrize("name", [PACKAGE, f"{PACKAGE}.models", "flags", "main"])
def test_these_are_imported_without_tensorflow(name):
    code = f"import sys, {name}; print({{'keras', 'numpy', 'tensorflow'}} & set(sys.modules))"
    assert python(code).strip() == "set()"


def lines_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    nodes = [function]
    if ast.get_docstring(function, clean=False) is not None:
        nodes.append(function.body[0])
    total, *docstring = (node.end_lineno - node.lineno + 1 for node in nodes)
    return total - sum(docstring)


def test_functions_and_modules_are_short():
    functions = {
        f"{module}.{node.name}": lines_without_docstring(node)
        for module in PROGRAM
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    modules = {m: len(MODULES[m].read_text(encoding="utf-8").splitlines()) for m in PROGRAM}
    assert {name: n for name, n in functions.items() if n > LONGEST_FUNCTION} == {}
    assert {name: n for name, n in modules.items() if n > LONGEST_MODULE} == {}


def distribution(module: str) -> str:
    return DISTRIBUTIONS.get(module, module)


def test_what_is_imported_is_declared():
    imported = {distribution(name) for module in PROGRAM for name in third_party(module)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in required if not line.startswith("#")]
    for requirements in (project["dependencies"], lines):
        names = {re.split(r"[\[<>=!~ ]", line, maxsplit=1)[0] for line in requirements}
        assert names == imported | UNDECLARED


@functools.cache
def closure(target: str) -> frozenset[str]:
    """Labels that a target depends on, directly or not."""
    labels = set(TARGETS[target].get("deps", ()))
    indirect = [closure(label[1:]) for label in labels if label.startswith(":")]
    return frozenset(labels.union(*indirect))


def files_of(target: str) -> set[str]:
    """Source files of a target and of all that it depends on."""
    targets = [target, *(label[1:] for label in closure(target) if label.startswith(":"))]
    return {path for name in targets for path in TARGETS[name].get("srcs", ())}


def test_every_file_of_the_program_is_in_one_target():
    libraries = [name for name in TARGETS if "main" not in TARGETS[name]]
    sources = Counter(path for name in libraries for path in TARGETS[name].get("srcs", ()))
    assert {path: n for path, n in sources.items() if n > 1} == {}
    assert files_of("testing") == {path.relative_to(ROOT).as_posix() for path in MODULES.values()}


def test_every_test_file_has_a_target():
    names = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    tests = {name: rule for name, rule in TARGETS.items() if name.startswith("test_")}
    assert set(tests) == names - NOT_IN_BUILD
    for name, rule in tests.items():
        assert (rule["args"], rule["deps"]) == ([f"tests/{name}.py"], [":testing"])


def test_build_names_the_requirements():
    imported = {name for module in PROGRAM for name in third_party(module)}
    named = {label for label in closure("main") if label.startswith("@pypi//")}
    used = {f"@pypi//{distribution(name).lower().replace('-', '_')}" for name in imported}
    assert named == used | {"@pypi//tensorboard"}


def project_files() -> list[Path]:
    """Files that git tracks or would; without git, all but hidden folders and build outputs."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        names = [name for name in listed.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        hidden = re.compile(r"\.git|\.venv.*|\..*_cache|__pycache__|build|dist|runs|.*\.egg-info")
        names = [str(path) for path in paths if not any(map(hidden.fullmatch, path.parts))]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_no_file_names_a_machine_or_a_registry():
    # A directory of one machine at the start of a path; the host of a package registry.
    machine = r"(?<![\w.~$}-])/(?:root|work|home|Users)/[\w.]|[A-Z]:\\Users\\"
    registry = r"\b(?:pypi\.org|pythonhosted\.org|registry\.npmjs|npmjs\.org|conda\.anaconda)"
    forbidden = re.compile(f"{machine}|{registry}")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in project_files()
        if b"\0" not in (content := path.read_bytes())
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert not found
