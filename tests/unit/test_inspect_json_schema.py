"""The published schema of `--json`: real output of every command fits it, and every member that it describes is really written."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import optuna
import pytest

import ckptfmt
from ckpt_inspect.main import main
from ckpt_inspect.registry import COMMANDS
from ckpt_inspect.sources.run_watch import RunWatch
from ckpt_inspect.views.watch_changes import changes_between

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "spec" / "ckpt-inspect-json-1.schema.json").read_text("utf-8"))


def strict(schema):
    """The schema as the writer has to keep it: no member that is not described."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        changed["additionalProperties"] = False
    return changed


STRICT = strict(SCHEMA)


def name_of(document):
    return f"line_{document['message_type']}" if "message_type" in document else f"document_{document['kind']}"


def check(document):
    """Validate one document as strictly as it can be, and as everybody can."""
    name = name_of(document)
    assert name in SCHEMA["$defs"], f"{name} is not described"
    jsonschema.Draft202012Validator({**STRICT, "oneOf": [{"$ref": f"#/$defs/{name}"}]}).validate(document)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    return document


def metrics(step):
    return {"val.loss": 1 / step, "odd": math.nan if step == 100 else math.inf}


def state(step):
    weights = {"w": np.full(500, step, np.float32), "frozen": np.zeros(9000), "z": np.ones(2, complex)}
    weights |= {"text": np.array(["a"]), "columns": np.asfortranarray(np.ones((2, 3)))}
    return {"model": weights, "epoch": step, "names": ("a", "b"), "options": {"lr": 0.1, "step": step, "tied": weights["w"]}}


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = str(tmp_path_factory.mktemp("schema") / "run")
    with ckptfmt.Run(path, durable=False, fingerprint=ckptfmt.Fingerprint(seed=1, config={"lr": 0.1})) as run:
        for step in (100, 200, 300):
            run.save(step, state(step), metrics=metrics(step))
        calls = run.progress("calls", total=4)
        for key in list(calls.pending([1, "two", (3, "x")])):
            calls.done(key, metrics={"tokens": 3}) if key != "two" else calls.fail(key, "no")
        study = run.study("search", direction="minimize", sampler=optuna.samplers.RandomSampler(seed=1))

        def objective(trial):
            trial.suggest_categorical("kind", ["a", None])
            trial.report(0.5, 1)
            if trial.number == 1:
                raise optuna.TrialPruned
            return trial.suggest_float("x", 0, 1)

        ckptfmt.optimize(study, objective, n_trials=3)
    os.mkdir(os.path.join(path, "step-00000400"))
    optuna.logging.set_verbosity(before)
    return path


@pytest.fixture
def documents(run_path, tmp_path, capsys):
    """Everything that the commands write, by command; from a run, and from one with damage of every kind."""
    broken = str(tmp_path / "broken")
    shutil.copytree(run_path, broken)
    first = os.path.join(broken, "step-00000100")
    shard = next(os.path.join(first, name) for name in os.listdir(first) if name.startswith("model"))
    for path in (shard, *(os.path.join(broken, name, found) for name in ("history",) for found in os.listdir(os.path.join(broken, name)))):
        os.chmod(path, 0o644)
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 2)
            file.write(b"\xff" * 40)
    last = os.path.join(run_path, "step-00000300")
    shard = next(os.path.join(last, name) for name in os.listdir(last) if name.startswith("model"))
    calls = [
        ["inspect", run_path],
        ["inspect", broken],
        ["inspect", last],
        ["inspect", last, "--tree", "--tensors"],
        ["inspect", last, "--chunks"],
        ["inspect", last, "--stats"],
        ["inspect", first, "--stats"],
        ["inspect", shard, "--tree"],
        ["inspect", os.path.join(run_path, "history")],
        ["inspect", os.path.join(broken, "history")],
        ["inspect", os.path.join(run_path, "progress", "calls")],
        ["inspect", os.path.join(run_path, "studies", "search")],
        ["verify", run_path, str(tmp_path / "nothing")],
        ["verify", broken],
        ["salvage", broken, "-n"],
        ["salvage", broken, "-y"],
        ["history", run_path],
        ["history", run_path, "--plot", str(tmp_path / "x.svg")],
        ["best", run_path, "--metric", "val.loss", "--mode", "min"],
        ["cleanup", run_path, "--keep-last", "1", "-n"],
        ["compress", broken, str(tmp_path / "nothing"), "-n"],
        ["decompress", run_path, str(tmp_path / "nothing")],
        ["diff", first, last],
        ["diff", os.path.join(run_path, "step-00000100"), last],
        ["convert", run_path, str(tmp_path / "results"), "--steps", "300"],
        ["report", run_path, "-o", str(tmp_path / "x.html")],
        ["watch", run_path, "--once"],
        ["watch", run_path, "--once", "--metric", "val.loss", "--mode", "max"],
        ["doctor", str(tmp_path)],
        ["completion", "bash"],
    ]
    found = []
    for call in calls:
        status = main([*call, "--json"])
        out = capsys.readouterr().out
        assert status in (0, 1, 10), (call, status)
        found.append((call[0], json.loads(out)))
    return found


def changes(run_path, tmp_path):
    """A line of every kind that `watch` writes between two looks."""
    path = str(tmp_path / "watched")
    shutil.copytree(run_path, path)
    with RunWatch(path) as looking:
        before = looking.look()
        with ckptfmt.Run(path, durable=False, on_mismatch="ignore") as run:
            run.save(500, state(500), metrics=metrics(500))
            run.progress("calls").done("another")
            shutil.rmtree(os.path.join(path, "step-00000100"))
            os.unlink(os.path.join(path, "step-00000200", "manifest.json"))
            Path(path, "step-00000200", "manifest.json").write_text("{")
            study = run.study("search", direction="minimize", sampler=optuna.samplers.RandomSampler(seed=1))
            ckptfmt.optimize(study, lambda trial: 1.0, n_trials=4)
            after = looking.look()
        from dataclasses import replace

        return [*changes_between(before, after), *changes_between(after, replace(after, problems=["it is damaged"]))]


def lines(run_path, tmp_path):
    written = [
        {"message_type": change.kind, "at_utc": "2025-11-21T03:05:12.000000Z", **change.document} for change in changes(run_path, tmp_path)
    ]
    waiting = {"message_type": "waiting", "at_utc": "2025-11-21T03:05:12.000000Z", "path": "x"}
    return [json.loads(json.dumps({"schema_version": 1, **line})) for line in (*written, waiting)]


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    named = {part["$ref"].removeprefix("#/$defs/") for part in SCHEMA["oneOf"]}
    assert named == {name for name in SCHEMA["$defs"] if name.startswith(("document_", "line_"))}


def test_every_command_writes_what_the_schema_describes(documents):
    for _, document in documents:
        check(document)
    assert {command for command, _ in documents} == {command.name for command in COMMANDS}


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_every_line_of_watch_is_described(run_path, tmp_path):
    found = {name_of(check(line)) for line in lines(run_path, tmp_path)}

    assert found | {"line_status"} == {name for name in SCHEMA["$defs"] if name.startswith("line_")}


def seen(documents):
    """The (definition, member) that were really written, by following references from each document."""
    written = set()

    def follow(schema, value, name):
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/")
            follow(SCHEMA["$defs"][name], value, name)
        for part in schema.get("anyOf", ()):
            if jsonschema.Draft202012Validator({**part, "$defs": SCHEMA["$defs"]}).is_valid(value):
                follow(part, value, name)
        if isinstance(value, dict):
            for key, part in schema.get("properties", {}).items():
                if key in value:
                    written.add((name, key))
                    follow(part, value[key], f"{name}.{key}" if "properties" in part.get("items", part) else name)
        elif isinstance(value, list) and "items" in schema:
            for item in value:
                follow(schema["items"], item, name)

    for document in documents:
        follow({"$ref": f"#/$defs/{name_of(document)}"}, document, "")
    return written


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_nothing_is_described_that_is_never_written(documents, run_path, tmp_path):
    written = seen([*(document for _, document in documents), *lines(run_path, tmp_path)])
    described = {(name, key) for name, schema in SCHEMA["$defs"].items() for key in schema.get("properties", ())}

    assert described - written == set()


def test_a_document_that_does_not_fit_is_caught(documents):
    document = next(document for command, document in documents if command == "best")
    for change in ({"step": "1"}, {"value": None}, {"more": 1}, {"schema_version": 2}, {"mode": "median"}):
        with pytest.raises(jsonschema.ValidationError):
            check({**copy.deepcopy(document), **change})
    with pytest.raises(jsonschema.ValidationError):
        check({key: value for key, value in document.items() if key != "path"})
