"""The examples of spec/fingerprint-1.md run, and its tables name what the code knows."""

from __future__ import annotations

import datetime
import json
import re
from decimal import Decimal
from fractions import Fraction
from http import HTTPStatus
from pathlib import Path
from uuid import UUID

from ckptfmt.run.fingerprint import Fingerprint, compare
from ckptfmt.run.fingerprint_values import plain_fields

SPEC = (Path(__file__).resolve().parents[2] / "spec" / "fingerprint-1.md").read_text()


def block(language, number=0):
    return re.findall(rf"```{language}\n(.*?)```", SPEC, re.DOTALL)[number]


def test_the_fingerprint_of_the_example_is_the_document_of_the_example():
    made = eval(block("python"), {"Fingerprint": Fingerprint})
    document = json.loads(block("json"))
    stored = Fingerprint.from_document(document)
    assert compare(document, made) == ()
    assert made == stored
    assert list(made.fields) == list(document["fields"])
    assert {**made.to_document(), "salt": 0, "fields": 0} == {**document, "salt": 0, "fields": 0}


def test_the_program_of_the_example_computes_the_digest_and_knows_the_secret():
    namespace = {"document": json.loads(block("json"))}
    exec(block("python", 1), namespace)
    made = Fingerprint(seed=3, config={"a": {"b": [1, (2,)]}, "c": "x" * 2000}, data={}, warn=["config.a.*"])
    assert namespace["fingerprint_digest"](made.to_document(), {}) == made.digest
    assert not namespace["is_same_secret"](namespace["document"], "config.api_key", "str wrong horse")


def test_every_type_of_plain_data_is_in_the_table_of_the_specification():
    table = SPEC[SPEC.index("### 3.2") : SPEC.index("### 3.3")]
    named = set(re.findall(r"`([a-z]+)`", table))
    now = datetime.datetime.now(datetime.UTC)
    samples = [None, True, 1, 1.0, 1j, "", b"", bytearray(), Path(), HTTPStatus.OK, len, int, now, now.date(), now.time(), now - now]
    samples += [Decimal(1), Fraction(1), UUID(int=1), range(1), [], (), set(), frozenset()]
    found = {leaf.type for sample in samples for leaf in plain_fields("x", sample, skip_none=False).values()}
    assert found <= named
    assert len(found) == len(samples)
