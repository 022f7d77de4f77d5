"""What the specification lists in tables, the code has in tables: codes, tags, element types, members."""

import re

import pytest

from ckptfmt.errors import IncompleteError
from ckptfmt.format import dtypes, manifest, metadata, references
from ckptfmt.format.layout import KNOWN_FEATURES
from ckptfmt.format.rules import TITLES, violation
from ckptfmt.state import tree
from tests.conformance.make_vectors import VECTORS

SPEC = VECTORS.parents[1]
TEXT = (SPEC / "format-1.md").read_text("utf-8")
TABLE = (SPEC / "validation-codes.md").read_text("utf-8")
CODES = {row[0]: row for row in re.findall(r"(?m)^\| ([EW]\d{3}) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", TABLE)}


def chapter(number, title):
    part = re.split(r"(?m)^#{2,3} ", TEXT)
    return next(text for text in part if text.startswith((f"{number} {title}", f"{number}. {title}")))


def rows_of(text):
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| `")]


def names_in(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_every_code_is_documented_and_every_documented_code_exists():
    assert CODES.keys() == TITLES.keys()


@pytest.mark.parametrize("code", sorted(TITLES))
def test_every_code_stands_in_the_specification(code):
    texts = [path.read_text("utf-8") for path in SPEC.glob("*-1.md")]
    assert any(code in re.sub(r"[EW]\d{3} to [EW]\d{3}", "", text) for text in texts)


def test_no_code_of_the_specification_is_unknown():
    assert set(re.findall(r"\b[EW]\d{3}\b", TEXT)) <= TITLES.keys()


@pytest.mark.parametrize("code", sorted(TITLES))
def test_the_class_of_an_error_is_as_documented(code):
    documented = re.findall(r"\w+Error", CODES[code][3])
    assert bool(documented) == code.startswith("E")
    if code == "E001":
        assert documented == [IncompleteError.__name__]
    elif documented:
        assert type(violation(code, "f")).__name__ == documented[0]


@pytest.mark.parametrize("code", sorted(TITLES))
def test_every_code_has_a_vector_or_a_reason(code):
    named = re.match(rf"{code}-[a-z0-9-]+", CODES[code][4])
    folders = [path.name for kind in ("bad", "warn") for path in (VECTORS / kind).glob(f"{code}-*")]
    assert (named and named[0] in folders) or (CODES[code][4].startswith("none: ") and not folders)


def test_the_table_of_tags_is_that_of_the_code():
    documented = {tag for row in rows_of(chapter(8, "Values")) for tag in names_in(row[0]) if tag.startswith("$")}
    assert documented == tree._TAGS.keys()


def test_the_kinds_of_tensors_are_those_of_the_code():
    sentence = chapter("9.1", "References").partition("`attributes` is a map")[0].partition("`kind` says")[2]
    assert set(names_in(sentence)) == tree._KINDS.keys() == references.KINDS.keys()


def test_the_table_of_element_types_is_that_of_the_code():
    native, raw = {}, {}
    for names, sizes, stored in rows_of(chapter("9.2", "Element types")):
        spelled = re.sub(r"`(u?int)1` to `u?int7`", lambda match: " ".join(f"`{match[1]}{bits}`" for bits in range(1, 8)), names)
        groups = [names_in(group) for group in spelled.split(",")]
        for group, size in zip(groups, re.findall(r"\d+", sizes) * len(groups), strict=False):
            if stored.startswith("U8 of"):
                raw.update(dict.fromkeys(group, int(size)))
            else:
                native.update({name: (form, int(size)) for name, form in zip(group, stored.split(), strict=True)})
    assert native == dtypes.NATIVE
    assert {name: size for name, size in raw.items() if name != "numpy:"} == dtypes.RAW_SIZES


def test_the_members_of_the_manifest_are_those_of_the_code():
    assert {names_in(row[0])[0] for row in rows_of(chapter(4, "Manifest"))} == manifest.MEMBERS


def test_the_members_of_the_metadata_are_those_of_the_code():
    assert {names_in(row[0])[0] for row in rows_of(chapter(7, "Metadata"))} == metadata.MEMBERS


def test_the_features_that_this_version_knows_are_those_of_the_code():
    sentence = chapter(13, "Versions").partition("that this version knows:")[2]
    assert set(names_in(sentence)) == KNOWN_FEATURES
