"""The plan of the house, held up by `ast`: imports go down only, one door to the disk, no pickle, small files.

From the ground up: errors < format, disk < state < checkpoint < run < adapters < __init__ < tools.
Every import counts, also one inside a function or under TYPE_CHECKING: hiding an import does not lower it.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"_version": 0, "errors": 0, "format": 1, "disk": 1, "state": 2, "checkpoint": 3, "run": 4, "adapters": 5, "__init__": 6}
# The method Run.study is a promise of the interface; what it returns is made of Optuna's objects, which only an adapter knows.
UPWARD = {("ckptfmt.run.run", "ckptfmt.adapters.optuna_study")}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
HEAVY = {"torch", "numpy", "jax", "jaxlib", "optuna", "ml_dtypes", "xgboost", "lightgbm", "lightning", "transformers", "sklearn", "scipy"}
FILE_MODULES = {"shutil", "tempfile", "mmap", "fcntl", "glob", "fileinput"}
PURE_NAMES = {"os": {"fspath", "PathLike", "getpid", "cpu_count"}, "io": {"BytesIO", "StringIO"}}
PATH_METHODS = {"read_bytes", "read_text", "write_bytes", "write_text", "iterdir", "rglob", "touch", "symlink_to", "hardlink_to"}

FILES = {
    path.relative_to(base).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for base, folder in ((ROOT, "ckptfmt"), (ROOT / "tools", "ckpt_inspect"))
    for path in sorted((base / folder).rglob("*.py"))
}
TREES = {module: ast.parse(path.read_bytes(), str(path)) for module, path in FILES.items()}
LIBRARY = [module for module in FILES if module.split(".")[0] == "ckptfmt"]


def floor_of(module):
    """The folder (or file of the top folder) that a module belongs to, and its height; tools are above everything."""
    top, _, rest = module.partition(".")
    folder = rest.split(".")[0] or "__init__"
    return ("tools", 7) if top == "ckpt_inspect" else (folder, FLOORS.get(folder))


def imports_in(module, node):
    """The full names that one import statement binds or reaches: `from a import b` is `a.b`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = module.split(".") if FILES[module].name == "__init__.py" else module.split(".")[:-1]
    origin = [*package[: len(package) - node.level + 1], node.module or ""] if node.level else [node.module]
    return [".".join(filter(None, [*origin, alias.name])) for alias in node.names]


def imports_of(module):
    return [(node.lineno, name) for node in ast.walk(TREES[module]) for name in imports_in(module, node)]


def edges_of(module):
    """The project's own modules that a module imports; a name inside a module counts as that module."""
    for line, name in imports_of(module):
        found = next((name.rsplit(".", cut)[0] for cut in (0, 1) if name.rsplit(".", cut)[0] in FILES), None)
        if found:
            yield line, found


def nodes_at_import(node):
    """The nodes that run when a module is imported: no function bodies, nothing under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        is_for_types = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        if not is_for_types and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from nodes_at_import(child)


def file_uses(module):
    """Where a module would touch the file system; what goes through an object called `disk` is meant to."""
    for node in ast.walk(TREES[module]):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        receiver, _, method = called.rpartition(".")
        if called == "open" or (method in PATH_METHODS and not receiver.endswith("disk")):
            yield node.lineno, called
        owner, _, name = ast.unparse(node).partition(".") if isinstance(node, ast.Attribute) else ("", "", "")
        if owner in PURE_NAMES and name.split(".")[0] not in PURE_NAMES[owner]:
            yield node.lineno, f"{owner}.{name}"
    for line, name in imports_of(module):
        top, _, rest = name.partition(".")
        if top in FILE_MODULES or (top in PURE_NAMES and rest and rest not in PURE_NAMES[top]):
            yield line, name


def check_none(findings):
    """Fail if there is any finding, with one line for each: path:line: what."""
    found = [f"{FILES[module].relative_to(ROOT)}:{line}: {what}" for module, line, what in findings]
    assert not found, "\n" + "\n".join(sorted(set(found)))


def test_every_module_stands_on_a_floor():
    check_none((module, 1, "is in no folder of the plan") for module in FILES if floor_of(module)[1] is None)


def test_imports_go_down_only():
    pairs = [(module, line, target, floor_of(module), floor_of(target)) for module in FILES for line, target in edges_of(module)]
    check_none(
        (module, line, f"imports {target}")
        for module, line, target, here, there in pairs
        if here[0] != there[0] and here[1] <= there[1] and (module, target) not in UPWARD
    )


def test_files_of_one_folder_do_not_import_each_other_in_a_circle():
    graph = {module: {target for _, target in edges_of(module) if target != module} for module in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(reversed(error.args[1]))) from None


def test_nobody_imports_pickle():
    check_none((module, line, f"imports {name}") for module in FILES for line, name in imports_of(module) if name.split(".")[0] in PICKLES)


def test_importing_ckptfmt_imports_no_framework():
    nodes = [(module, node) for module in LIBRARY for node in nodes_at_import(TREES[module])]
    names = [(module, node.lineno, name) for module, node in nodes for name in imports_in(module, node)]
    check_none((module, line, f"imports {name} at module level") for module, line, name in names if name.split(".")[0] in HEAVY)


def test_only_state_and_adapters_know_torch():
    outside = [module for module in LIBRARY if floor_of(module)[0] not in ("state", "adapters")]
    check_none(
        (module, line, f"imports {name}") for module in outside for line, name in imports_of(module) if name.split(".")[0] == "torch"
    )


def test_only_disk_touches_files():
    outside = [module for module in LIBRARY if floor_of(module)[0] != "disk"]
    check_none((module, line, f"uses {what}") for module in outside for line, what in file_uses(module))


def test_files_stay_under_400_lines():
    sizes = {module: len(path.read_bytes().splitlines()) for module, path in FILES.items()}
    check_none((module, line_count, f"has {line_count} lines") for module, line_count in sizes.items() if line_count >= 400)
