"""Readers of progress and studies from spec/format-1.md, 17 and 18, alone, on top of the naive reader of journals.

`read_progress(path)` and `read_studies(path)` return what case.json of a vector holds. They trust the records that they read.
"""

import re
from pathlib import Path

import msgpack

from tests.conformance import naive_journal_reader


def hashable(key):
    return tuple(map(hashable, key)) if type(key) is list else (type(key), key)


def read_progress(path):  # 17.3
    journals = [naive_journal_reader.read(writer) for writer in sorted((Path(path) / "writers").iterdir())]
    records = [record for journal in journals for _, record in journal]
    units, failures = {}, {}
    for kind, key, at, *rest in (record for record in records if record[0] in ("done", "fail")):
        table, is_better = (units, lambda old, at=at: at < old[1]) if kind == "done" else (failures, lambda old, n=rest[0]: n > old[1])
        entry = [key, at, msgpack.unpackb(rest[0])[:3]] if kind == "done" else [key, rest[0], rest[1]]
        if hashable(key) not in table or is_better(table[hashable(key)]):
            table[hashable(key)] = entry
    latest = {}
    for kind, at, value, *_ in (record for record in records if record[0] in ("begin", "total")):
        if (kind == "total" or value is not None) and at >= latest.get(kind, (at,))[0]:
            latest[kind] = (at, value)
    return {
        "total": latest.get("total", (0, None))[1],
        "fingerprint": latest.get("begin", (0, None))[1],
        "units": sorted(units.values(), key=lambda unit: unit[1]),
        "failures": [failure for key, failure in failures.items() if key not in units],
    }


def settled(journal):  # 18.4
    kept = []
    for number, record in journal:
        if record["op"] == "take_back":
            kept = [one for one in kept if one[0] <= record["after"]]
        else:
            kept.append((number, record))
    while kept and kept[-1][1].get("provisional"):
        kept.pop()
    return [record for _, record in kept]


def merged_order(path):  # 18.6
    names = [entry.name for entry in sorted(Path(path).iterdir()) if re.fullmatch("writer-[0-9a-f]{16}", entry.name)]
    journals = {name: dict(naive_journal_reader.read(Path(path) / name)) for name in names}
    merges = [
        (record["turn"], name, number, record) for name in names for number, record in journals[name].items() if record["op"] == "merged"
    ]
    first, through = [], {}
    if merges:
        _, base, number, merge = max(merges)
        end = number + merge["count"]
        first = [journals[base][one] for one in range(number + 1, end + 1)]
        through = {base: end, **merge["through"], **dict.fromkeys(merge["ended"], 2**63)}
    rest = [record for name in names for number, record in journals[name].items() if number > through.get(name, 0)]
    return first + sorted(rest, key=lambda record: (record["turn"], not record["numbered"]))


def read_studies(path):  # 18.3
    is_shared = any(entry.is_dir() for entry in Path(path).iterdir())
    studies, trials, before = {}, {}, {}
    for record in merged_order(path) if is_shared else settled(naive_journal_reader.read(path)):
        op, study, trial = record["op"], studies.get(record.get("study")), trials.get(record.get("trial"))
        if op == "create_study":
            attributes = {"user_attrs": {}, "system_attrs": {}, "sampler": {}, "trials": []}
            studies[record["study"]] = {"id": record["study"], "name": record["name"], "directions": record["directions"], **attributes}
        elif study is not None:
            change_study(record, studies, study, trials)
        elif trial is not None:
            change_trial(record, studies, trial, before)
    return list(studies.values())


def change_study(record, studies, study, trials):
    op = record["op"]
    if op == "delete_study":
        del studies[study["id"]]
        for trial in study["trials"]:
            del trials[trial["id"]]
    elif op in ("study_user_attr", "study_system_attr"):
        study[op[6:] + "s"][record["key"]] = record["value"]
    elif op == "sampler":
        study["sampler"] = {**{path: value for path, value in study["sampler"].items() if path not in record["gone"]}, **record["changed"]}
    elif op in ("begin_trial", "create_trial"):
        names = ("state", "values", "started_at", "finished_at", "params", "user_attrs", "system_attrs", "intermediate")
        empty = [0, None, record.get("at"), None, [], {}, {}, []]
        made = {name: record.get(name, other) for name, other in zip(names, empty, strict=True)}
        made["params"] = {name: [value, text] for name, value, text in made["params"]}
        made["intermediate"] = {str(step): value for step, value in made["intermediate"]}
        trials[record["trial"]] = {"id": record["trial"], "study": study["id"], **made}
        study["trials"].append(trials[record["trial"]])


def change_trial(record, studies, trial, before):
    op = record["op"]
    if op == "param":
        trial["params"][record["name"]] = [record["value"], record["distribution"]]
    elif op == "intermediate":
        trial["intermediate"][str(record["step"])] = record["value"]
    elif op in ("user_attr", "system_attr"):
        trial[op + "s"][record["key"]] = record["value"]
    elif op == "state" and record["state"] == 4:
        trial.update(before.pop(record["trial"]))
    elif op == "state":
        if record["state"] == 0:
            kept = {name: dict(value) if type(value) is dict else value for name, value in trial.items()}
            before[record["trial"]] = kept
        trial["state"] = record["state"]
        trial["values"] = trial["values"] if record["values"] is None else record["values"]
        trial["started_at" if record["state"] == 0 else "finished_at"] = record["at"]
        if record.get("lost"):
            trial["system_attrs"]["ckptfmt:lost"] = True
        if "sampler" in record:
            change_study({"op": "sampler", **record["sampler"]}, studies, studies[trial["study"]], {})
