"""The rules that hold for the tree as a whole: who imports whom, how long, what BUILD says."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "augmix_tf"

# A room is a module or package right under augmix_tf; each imports lower layers or itself.
LAYERS = (
    ("config", "request", "settings", "checks", "seeds", "files", "quiet", "workdir"),
    ("ops", "losses", "metrics", "models"),
    ("augment", "data", "corruptions", "presets"),
    ("training", "evaluation", "serving", "reports"),
    ("experiment",),
    ("flags", "main"),
)
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}

LONGEST_FUNCTION = 45
LONGEST_MODULE = 280

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
# They read the whole checkout, of which a Bazel sandbox holds a part.
NOT_IN_BUILD = {"test_layers", "test_security"}


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
ROOMS = sorted(LAYER)


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str) -> frozenset[str]:
    """All that a module imports, wherever it does: our modules by name, others by top level."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in whole}
    ours = found & set(MODULES)
    others = {name.split(".")[0] for name in found - ours}
    return frozenset(ours | others - sys.stdlib_module_names - {"__future__"})


def room(module: str) -> str:
    """`augmix_tf.ops.affine` -> `ops`, `flags` -> `flags`, the package's own file -> ``."""
    parts = module.split(".")
    return ".".join(parts[1:2]) if parts[0] == PACKAGE else parts[0]


def room_imports(module: str) -> set[str]:
    """Rooms that a module imports from, without its own and the package's version."""
    ours = {room(name) for name in imports(module) if name in MODULES}
    return ours - {room(module), ""}


def third_party(module: str) -> set[str]:
    return {name for name in imports(module) if name not in MODULES}


def modules_of(name: str) -> list[str]:
    return [module for module in PROGRAM if room(module) == name]


# Layers


def test_every_room_stands_in_one_layer():
    assert sum(map(len, LAYERS)) == len(LAYER)
    assert {room(module) for module in PROGRAM} - {""} == set(LAYER)


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_lower_layers_only(name):
    # Layer 0 is one room of single modules, and so is the command line.
    neighbours = LAYERS[LAYER[name]] if LAYER[name] in (0, 5) else ()
    wrong = [
        f"{module} (layer {LAYER[name]}) imports {other} (layer {LAYER[other]})"
        for module in modules_of(name)
        for other in sorted(room_imports(module))
        if other not in neighbours and LAYER[other] >= LAYER[name]
    ]
    assert not wrong


def test_no_module_imports_itself_by_a_detour():
    # The package's own file imports when it is asked for something, not when it is imported.
    parts = set(PROGRAM) - {PACKAGE}
    graph = {module: imports(module) & parts - {module} for module in parts}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_main_imports_the_flags_and_nothing_imports_main():
    importers = {module for module in PROGRAM if imports(module) & {"flags", "main"}}
    assert importers == {"main"}
    assert "main" not in imports("main")


def test_only_the_composer_and_what_makes_configurations_know_them():
    knowing = {room(m) for m in PROGRAM if {"config", "presets"} & room_imports(m)}
    assert knowing <= {"request", "workdir", "presets", "experiment", "flags", "reports"}


def test_reports_know_of_configurations_only_what_sets_no_run_apart():
    """They read `config.json` as it is, so that runs of other versions can be compared."""
    names = {
        alias.name
        for module in modules_of("reports")
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and node.module in (f"{PACKAGE}.config", PACKAGE)
        for alias in node.names
    }
    assert names & {"config", "ExperimentConfig", "FREE_TO_CHANGE"} == {"FREE_TO_CHANGE"}


@pytest.mark.parametrize("name", ["ops", "losses"])
def test_operations_and_losses_run_beside_tensorflow_addons(name):
    for module in modules_of(name):
        assert third_party(module) <= {"tensorflow", "numpy", "absl"}, module
        assert room_imports(module) <= set(LAYERS[0]), module


@pytest.mark.parametrize("name", [PACKAGE, "flags", "main"])
def test_these_are_imported_without_tensorflow(name):
    code = f"import sys, {name}; print({{'keras', 'numpy', 'tensorflow'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# Lengths


def functions(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    counted = [function]
    if ast.get_docstring(function, clean=False) is not None:
        counted.append(function.body[0])
    whole, *docstring = (node.end_lineno - node.lineno + 1 for node in counted)
    return whole - sum(docstring)


def test_functions_are_short():
    lengths = {
        f"{module}.{function.name}": lines_without_docstring(function)
        for module in PROGRAM
        for function in functions(module)
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


def test_modules_are_short():
    paths = (MODULES[module] for module in PROGRAM)
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in paths
    }
    long = {name: n for name, n in lengths.items() if n > LONGEST_MODULE}
    assert not long, "split them"


# Packaging


def distribution(module: str) -> str:
    return DISTRIBUTIONS.get(module, module)


def test_what_is_imported_is_declared():
    imported = {distribution(name) for module in PROGRAM for name in third_party(module)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in required if not line.startswith("#")]
    for requirements in (project["dependencies"], lines):
        names = {re.split(r"[<>=!~ ]", line, maxsplit=1)[0] for line in requirements}
        assert names == imported | UNDECLARED


def build_targets() -> dict[str, dict[str, object]]:
    """The rules of BUILD by name, which is read as what it nearly is: Python."""
    rules = {}
    for node in ast.parse((ROOT / "BUILD").read_text(encoding="utf-8")).body:
        call = node.value if isinstance(node, ast.Expr) else None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            continue
        if call.func.id in ("py_library", "py_binary", "py_test"):
            values = {keyword.arg: value(keyword.value) for keyword in call.keywords}
            rules[values["name"]] = values | {"rule": call.func.id}
    return rules


def value(node: ast.expr) -> object:
    """A literal, or the files of `glob([pattern])`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "glob":
        (patterns,) = map(ast.literal_eval, node.args)
        found = (path for pattern in patterns for path in ROOT.glob(pattern))
        return sorted(path.relative_to(ROOT).as_posix() for path in found)
    return ast.literal_eval(node)


def label(module: str) -> str:
    """The BUILD target that holds one of our modules, or brings one of others."""
    if module not in MODULES:
        return f"@pypi//{distribution(module).lower().replace('-', '_')}"
    return ":testing" if module.startswith("tests") else f":{room(module)}"


def labels(modules: Iterable[str]) -> set[str]:
    """What a target with these modules depends on."""
    found = set()
    for module in modules:
        inside = module.startswith(f"{PACKAGE}.")
        # Importing a part of the package runs the package's own file.
        found |= {":package"} if inside else set()
        ours = imports(module) - set(modules)
        found |= {label(name) for name in ours - {PACKAGE}}
        found |= {":augmix_tf"} if PACKAGE in ours and not inside else set()
    return found


def files_of(modules: Iterable[str]) -> list[str]:
    return sorted(MODULES[module].relative_to(ROOT).as_posix() for module in modules)


def with_tests_it_imports(module: str) -> set[str]:
    """A test file and the other test files whose functions it uses."""
    found = {module}
    for name in imports(module):
        if name.startswith("tests.test_") and name != module:
            found |= with_tests_it_imports(name)
    return found


def wanted_targets() -> dict[str, tuple[list[str], set[str]]]:
    """Name -> (files, deps) of every library and test, from the imports."""
    own_modules = {name: modules_of(name) for name in LAYER}
    tests = [module for module in MODULES if module.startswith("tests.test_")]
    helpers = [m for m in MODULES if m.startswith("tests") and m not in tests]
    wanted = {name: (files_of(own), labels(own)) for name, own in own_modules.items()}
    # The package's own file, and the package as a whole, whose parts that file imports on demand.
    wanted["package"] = (files_of([PACKAGE]), set())
    libraries = [name for rooms in LAYERS[:-1] for name in rooms]
    wanted[PACKAGE] = ([], {":package", *(f":{name}" for name in libraries)})
    wanted["testing"] = (files_of(helpers), labels(helpers))
    for module in tests:
        own = with_tests_it_imports(module)
        wanted[module.removeprefix("tests.")] = (files_of(own), labels(own))
    for name in NOT_IN_BUILD:
        del wanted[name]
    return wanted


def test_build_has_no_target_of_what_is_gone():
    assert set(build_targets()) <= set(wanted_targets())


@pytest.mark.parametrize("name", sorted(wanted_targets()))
def test_build_says_what_is_imported(name):
    files, deps = wanted_targets()[name]
    if name.startswith("test_"):
        files, deps = ["pytest_main.py", *files], deps | {"@pypi//pytest"}
    target = build_targets().get(name)
    assert target, f"want a target {name}: srcs {files}, deps {sorted(deps)}"
    if target["rule"] == "py_test":
        assert target["args"] == [f"tests/{name}.py"]
    assert sorted(target.get("srcs", [])) == sorted(files)
    listed = set(target.get("deps", []))
    assert listed == deps, f"missing {sorted(deps - listed)}, too much {sorted(listed - deps)}"


# Files


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
    # A folder of one machine at the start of a path; the host of a package registry.
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
