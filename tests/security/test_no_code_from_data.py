"""Nothing that is shipped can turn data into code: no pickle, no evaluation, no import by a name that is not written down.

Exceptions are listed with their reason; a new one is a decision, not an accident.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted([*(ROOT / "ckptfmt").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])

# pickletools is not among them: it takes pickles apart without running them.
RUNS_CODE = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle", "runpy", "code", "codeop"}
EVALUATORS = {"eval", "exec", "compile", "__import__", "execfile", "breakpoint"}
IMPORTERS = {"import_module", "find_spec", "exec_module", "load_module", "spec_from_file_location"}
LOADERS = {"torch.load", "numpy.load", "np.load", "yaml.load", "yaml.unsafe_load", "torch.jit.load", "torch.hub.load"}
PROCESSES = {"os.system", "os.popen", "os.execv", "os.execvp", *(f"subprocess.{name}" for name in ("run", "Popen", "call", "check_output"))}
# `doctor` asks a second process for a lock, by a program that stands there, and is given a directory and no checkpoint. A `Run` that
# compresses what is old has a process for that, which runs a line that stands in the package, and is started by no checkpoint's content.
OWN_PROGRAMS = {"ckptfmt/disk/probe_host.py", "ckptfmt/disk/background.py"}
READING = ("ckptfmt/format/", "ckptfmt/disk/", "ckptfmt/state/", "ckptfmt/checkpoint/", "tools/ckpt_inspect/")

# The name is a member of a table of the module (element types, layouts, bit generators), or of a class that is being saved.
CLOSED_TABLES = {
    f"ckptfmt/state/{name}.py" for name in ("torch_tensors", "torch_values", "torch_sparse", "numpy_dtypes", "numpy_random", "codecs")
}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


TREES = {name_of(path): ast.parse(path.read_bytes()) for path in MODULES}


def calls():
    """(module, line, dotted name, node) of every call."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield name, node.lineno, ast.unparse(node.func), node


def imports():
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((name, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield name, node.lineno, node.module


def is_literal(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_every_shipped_module_is_looked_at():
    assert len(TREES) > 80


def test_no_module_imports_what_runs_code_from_data():
    assert [(name, line, module) for name, line, module in imports() if module.split(".")[0] in RUNS_CODE] == []


def test_no_module_evaluates_text():
    assert [(name, line, called) for name, line, called, _ in calls() if called in EVALUATORS or called.startswith("builtins.")] == []


def test_modules_are_only_imported_by_names_that_are_written_down():
    found = [(name, line, called) for name, line, called, node in calls() if called.rpartition(".")[2] in IMPORTERS and not has_name(node)]
    assert found == []


def has_name(node):
    return bool(node.args) and is_literal(node.args[0])


def test_no_module_reads_files_with_a_loader_that_may_run_code():
    found = [(name, line, called) for name, line, called, node in calls() if called in LOADERS and not is_restricted(node)]
    assert found == []


def is_restricted(node):
    flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    return flags.get("weights_only") == "True" or flags.get("allow_pickle") == "False"


def test_what_reads_checkpoints_starts_no_process():
    found = [(name, line, called) for name, line, called, _ in calls() if called in PROCESSES and name.startswith(READING)]
    assert [each for each in found if each[0] not in OWN_PROGRAMS] == []


def test_attributes_are_looked_up_by_fixed_names_or_in_closed_tables():
    found = []
    for name, line, called, node in calls():
        if called == "getattr" and name.startswith("ckptfmt/state/") and name not in CLOSED_TABLES and not is_literal(node.args[1]):
            found.append((name, line, ast.unparse(node)))
    assert found == []
