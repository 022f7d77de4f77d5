"""Studies for the conformance vectors: sound ones, with one writer and with many, and ones with one wrong record. Spec 18."""

import json

from ckptfmt.format.journal_record import NO_LINK, Position
from tests.conformance.make_journal_vectors import SNAPSHOT, segment

AT = "2026-01-02T03:04:05.678901"
LATER = "2026-01-02T03:05:00"
WRITERS = ("writer-0123456789abcdef", "writer-fedcba9876543210", "writer-00000000000000aa")
CREATE = {"op": "create_study", "study": 0, "name": "lr", "directions": [1]}


def distribution(kind, **attributes):
    return json.dumps({"name": f"{kind}Distribution", "attributes": attributes})


X = distribution("Float", step=None, low=0.0, high=1.0, log=False)


def begin(trial, study=0, **more):
    return {"op": "begin_trial", "study": study, "trial": trial, "at": AT, **more}


def param(trial, name="x", value=0.5, text=X, **more):
    return {"op": "param", "trial": trial, "name": name, "value": value, "distribution": text, **more}


def state(trial, number, values=None, **more):
    return {"op": "state", "trial": trial, "state": number, "values": values, "at": LATER, **more}


def whole(trial, number, study=0, **members):
    empty = {"values": None, "started_at": AT, "finished_at": None, "params": [], "user_attrs": {}, "system_attrs": {}, "intermediate": []}
    return {"op": "create_trial", "study": study, "trial": trial, "state": number, **empty, **members}


def single(records):
    return segment(1, records, flushed=range(1, len(records))).seal().files


def provisional(*records):
    return [{**record, "provisional": True} for record in records]


def shared(*journals, number=1):
    """The files of a shared study. A record with a tuple before it is (turn, is it numbered)."""
    files = {}
    for writer, records in zip(WRITERS, journals, strict=False):
        made = segment(number, [{**record, "turn": turn, "numbered": is_numbered} for turn, is_numbered, record in records])
        files.update({f"{writer}/{name}": data for name, data in made.seal().files.items()})
    return files


def good_cases():
    running = [
        begin(0),
        param(0),
        state(0, 1, [0.25]),
        begin(1),
        state(1, 2, [0.5]),
        begin(2),
        state(2, 3, lost=True),
        whole(3, 4),
        begin(4),
    ]
    yield "states", "A trial of each state; the one that failed was lost with its process.", single([CREATE, *running])
    choices = [None, True, 1, 1.0, "one", 2**53, float("nan")]
    parts = {
        "float": (0.25, X),
        "log": (1e-5, distribution("Float", step=None, low=1e-6, high=1.0, log=True)),
        "step": (0.5, distribution("Float", step=0.25, low=0.0, high=1.0, log=False)),
        "int": (7, distribution("Int", log=False, step=1, low=-3, high=9)),
        "int log": (8.0, distribution("Int", log=True, step=1, low=1, high=64)),
        "even": (4, distribution("Int", log=False, step=2, low=2, high=10)),
        **{f"choice {index}": (index, distribution("Categorical", choices=choices)) for index in range(len(choices))},
    }
    records = [param(0, name, value, text) for name, (value, text) in parts.items()]
    yield "distributions", "A parameter of each distribution; choices 1, true and 1.0 are different.", single([CREATE, begin(0), *records])
    trees = {
        "plain": [1, None, {"a": 0.5}],
        "tuple": {"$tuple": [1, 2]},
        "int keys": {"$dict": [1, "a"]},
        "bin": b"\0",
        "big": {"$int": (2**70).to_bytes(9, "big", signed=True)},
    }
    attributes = []
    for key, tree in trees.items():
        attributes += [{"op": f"study_{kind}_attr", "study": 0, "key": key, "value": tree} for kind in ("user", "system")]
        attributes += [{"op": f"{kind}_attr", "trial": 0, "key": key, "value": tree} for kind in ("user", "system")]
    replaced = {"op": "user_attr", "trial": 0, "key": "plain", "value": "replaced"}
    yield "attributes", "Attributes of a study and of a trial; one is replaced.", single([CREATE, begin(0), *attributes, replaced])
    steps = {0: 0.5, 10**9: 1, 3: float("inf"), 2: float("-inf"), -1: float("nan")}
    values = [{"op": "intermediate", "trial": 0, "step": step, "value": value} for step, value in steps.items()]
    yield "intermediate-values", "Intermediate values, not in the order of their steps.", single([CREATE, begin(0), *values])
    both = {**CREATE, "directions": [1, 2]}
    yield "two-directions", "Values of two objectives, one of them not finite.", single([both, begin(0), state(0, 1, [0.5, float("-inf")])])
    first = {"op": "sampler", "study": 0, "changed": {"sampler": "TPESampler", "sampler._rng.words": bytes(8), "old": 1}, "gone": []}
    moved = {"changed": {"sampler._rng.position": ["MT19937", 624, 0, 0.0]}, "gone": ["old"]}
    yield (
        "sampler",
        "The state of a sampler, changed with the end of a trial.",
        single([CREATE, first, begin(0), state(0, 1, [1.0], sampler=moved)]),
    )
    tail = provisional(begin(1), param(1))
    yield (
        "killed-while-a-trial-ran",
        "What was written while a trial ran is provisional.",
        single([CREATE, begin(0), state(0, 1, [1.0]), *tail]),
    )
    taken = [*provisional(begin(1), param(1)), {"op": "take_back", "after": 3}, begin(1), param(1, value=0.75), state(1, 1, [2.0])]
    yield "taken-back", "The next writer took it back, and uses the id again.", single([CREATE, begin(0), state(0, 1, [1.0]), *taken])
    waited = [whole(0, 4), state(0, 0), param(0), state(0, 4, lost=False), whole(1, 4), state(1, 0), param(1)]
    yield "waits-again", "A trial that had waited is what it was before it began.", single([CREATE, *waited])
    members = {
        "values": [0.5],
        "finished_at": LATER,
        "params": [["x", 0.5, X]],
        "user_attrs": {"a": {"$tuple": []}},
        "system_attrs": {"fixed_params": {"x": 0.5}},
        "intermediate": [[0, 1.5], [7, 2]],
    }
    snapshot = segment(5, [CREATE, whole(0, 1, **members), whole(1, 1, values=[3.0])], base=Position(40, NO_LINK), kind=SNAPSHOT)
    after = segment(6, [begin(2), state(2, 1, [4.0])], base=snapshot.positions[-1], seen=[snapshot.seen]).seal()
    yield "compacted", "Whole trials, and a session after them.", {**snapshot.files, **after.files}
    several = [
        CREATE,
        {**CREATE, "study": 1, "name": "other"},
        begin(0),
        begin(1, study=1),
        {"op": "delete_study", "study": 0},
        begin(2, study=1),
    ]
    yield "several-studies", "Two studies, one of which is deleted with its trial.", single(several)
    newer = [{"op": "later", "any": "thing"}, {**CREATE, "color": "red"}, {**begin(0), "mood": 1}]
    yield "newer-records", "Ops and members that this version does not know.", single(newer)
    one = [(1, True, CREATE), (2, True, begin(0)), (2, False, param(0)), (4, True, state(0, 1, [0.5]))]
    two = [(3, True, begin(1)), (4, False, param(1, value=0.75)), (5, True, state(1, 1, [0.75])), (6, True, begin(2))]
    yield "shared", "Two writers; the records are in the order of their turns.", shared(one, two)
    lost = [(4, True, state(9, 3, lost=True)), (5, False, param(8)), (6, True, begin(3, study=7)), (7, True, begin(1))]
    yield "shared-after-a-power-cut", "Records that name what was lost are ignored.", shared([(1, True, CREATE)], lost)
    bulk = [CREATE, whole(0, 1, values=[0.5], finished_at=LATER), whole(4, 0, writer=WRITERS[1])]
    head = {"op": "merged", "ended": [WRITERS[2]], "through": {WRITERS[1]: 2}, "count": 3, "next_study": 2, "next_trial": 6}
    merged = [(8, True, head), *((8, False, record) for record in bulk), (9, True, begin(6)), (11, True, state(6, 1, [0.25]))]
    alive = [(6, True, begin(4)), (6, False, param(4, "old")), (7, False, param(4)), (10, True, state(4, 1, [1.0]))]
    left = [(1, True, {**CREATE, "name": "is not read any more"})]
    yield (
        "shared-merged",
        "A merge, a writer that goes on through it, and a journal that it holds and that was not removed.",
        shared(merged, alive, left),
    )


def bad_cases():
    def wrong(record):
        return single([CREATE, begin(0), record])

    yield "E058-record-is-an-array", "A record that is no map.", wrong(["param", 0])
    yield "E058-op-missing", "A record without an op.", wrong({"trial": 0})
    yield "E058-name-missing", "A parameter without a name.", wrong({"op": "param", "trial": 0, "value": 1, "distribution": X})
    yield "E058-id-is-a-text", "An id that is a text.", wrong(begin("1"))
    yield "E058-id-negative", "An id below 0.", wrong(begin(-1))
    yield "E058-directions-empty", "A study without directions.", wrong({**CREATE, "study": 1, "directions": []})
    yield "E058-direction-3", "A direction that there is not.", wrong({**CREATE, "study": 1, "directions": [3]})
    yield "E058-state-5", "A state that there is not.", wrong(state(0, 5))
    yield "E058-values-are-texts", "Values that are no numbers.", wrong(state(0, 1, ["low"]))
    yield "E058-time-with-a-zone", "A time with a zone.", wrong({**state(0, 1), "at": AT + "+00:00"})
    yield "E058-step-is-a-float", "A step that is a float.", wrong({"op": "intermediate", "trial": 0, "step": 0.5, "value": 1})
    yield "E058-distribution-not-json", "A distribution that is no JSON.", wrong(param(0, text="{"))
    yield "E058-distribution-unknown", "A distribution that there is not.", wrong(param(0, text=distribution("Normal", low=0, high=1)))
    yield "E058-bounds-swapped", "A range whose end lies before its beginning.", wrong(param(0, text=distribution("Int", low=3, high=1)))
    choices = distribution("Categorical", choices=["a", "b"])
    yield "E058-index-out-of-range", "The index of a choice that there is not.", wrong(param(0, value=2, text=choices))
    yield "E058-index-is-a-float", "The index of a choice that is a float.", wrong(param(0, value=1.0, text=choices))
    yield "E058-choice-is-an-array", "A choice that is an array.", wrong(param(0, value=0, text=distribution("Categorical", choices=[[1]])))
    yield "E058-integer-is-a-half", "A value that is not whole.", wrong(param(0, value=1.5, text=distribution("Int", low=1, high=3)))
    yield "E058-parameter-of-two", "A whole trial whose parameter lacks its distribution.", wrong(whole(1, 1, params=[["x", 1]]))
    yield (
        "E058-gone-is-a-text",
        "What is gone of a sampler is no array.",
        wrong({"op": "sampler", "study": 0, "changed": {}, "gone": "all"}),
    )
    yield "E058-sampler-of-a-state", "The sampler of a state is no map.", wrong(state(0, 1, sampler=3))
    yield "E058-lost-is-an-integer", "Whether a trial was lost is no boolean.", wrong(state(0, 3, lost=1))
    yield "E058-provisional-is-an-integer", "Whether a record is provisional is no boolean.", wrong({**begin(1), "provisional": 1})
    yield "E058-after-is-missing", "Nothing says what is taken back.", wrong({"op": "take_back"})
    yield (
        "E058-turn-missing",
        "A record of a shared study without a turn.",
        {f"{WRITERS[0]}/{name}": data for name, data in single([CREATE]).items()},
    )
    yield "E058-numbered-is-an-integer", "Whether a record is numbered is no boolean.", shared([(1, 1, CREATE)])
    head = {"op": "merged", "ended": [], "through": {}, "count": 3, "next_study": 2, "next_trial": 6}
    short = [(8, True, head), (8, False, CREATE), (8, False, whole(0, 1))]
    yield "E058-merged-too-short", "Of the records of a merge one is missing.", shared(short)
    yield "E058-merged-through-is-an-array", "What a merge holds is no map.", shared([(1, True, {**head, "through": [1]})])
    yield "E059-trial-that-is-not-there", "A parameter of a trial that is not there.", wrong(param(7))
    yield "E059-trial-again", "A trial that is there already.", wrong(begin(0))
    yield "E059-study-that-is-not-there", "A trial of a study that is not there.", wrong(begin(1, study=7))
    yield "E059-study-again", "A study that is there already.", wrong(CREATE)
    yield (
        "E027-attribute-with-an-unknown-tag",
        "An attribute with a tag that there is not.",
        wrong({"op": "user_attr", "trial": 0, "key": "a", "value": {"$nothing": 1}}),
    )
