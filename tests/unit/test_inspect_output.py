"""Texts that ckpt-inspect makes of names, numbers and values: safe on a terminal, short, and never wrong."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.style import Style, style_for
from ckpt_inspect.output.table import Table, labelled, name_column, number_column
from ckpt_inspect.output.units import age_text, count_text, duration_text, number_text, parse_utc, size_text
from ckpt_inspect.output.visible import columns, cut_end, cut_middle, padded, visible
from ckpt_inspect.views.findings import wrapped
from ckpt_inspect.views.values import dtype_text, fitted, text_of, type_of

HOSTILE = "a\x1b[2Jb\x07\r\n\x9b31m\u202egnp.exe\u2066\u200b\ufeff\U000e0041\x7f"


def test_what_a_terminal_acts_on_is_escaped():
    text = visible(HOSTILE)

    assert text.isprintable()
    assert text == "a\\x1b[2Jb\\x07\\r\\n\\x9b31m\\u202egnp.exe\\u2066\\u200b\\ufeff\\U000e0041\\x7f"


def test_letters_of_every_script_stay():
    assert visible("größe 层 🙂 é") == "größe 层 🙂 é"


def test_columns_count_what_a_terminal_shows():
    assert [columns(text) for text in ("abc", "层", "e\u0301", "größe")] == [3, 2, 1, 5]
    assert padded("层", 4) == "层  "
    assert padded("7", 3, align=">") == "  7"


def test_cut_texts_fit():
    assert cut_end("abcdefgh", 6) == "abc..."
    assert cut_middle("transformer.h.0.attn.weight", 16) == "tran...tn.weight"
    assert all(columns(cut_middle("层" * 30, width)) <= width for width in range(3, 70))
    assert all(columns(cut_end("层a" * 30, width)) <= width for width in range(3, 100))


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (1_048_576, "1.0 MB"), (10**20, "100.0 EB")],
)
def test_sizes_are_powers_of_a_thousand(size_bytes, text):
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (1, "1 second ago"),
        (185, "3 minutes ago"),
        (7200, "2 hours ago"),
        (86400 * 400, "1 year ago"),
        (-3600, "in the future"),
    ],
)
def test_ages_are_told_in_one_unit(seconds, text):
    now = datetime(2025, 11, 21, tzinfo=UTC)

    assert age_text(now - timedelta(seconds=seconds), now) == text


def test_times_that_no_calendar_has_are_no_error():
    assert parse_utc("2025-02-30T00:00:00.000000Z") is None
    assert parse_utc("2025-02-28T23:59:59.000001Z") == datetime(2025, 2, 28, 23, 59, 59, 1, UTC)


def test_numbers_and_durations_are_short():
    assert [number_text(value) for value in (1, 123456, 0.1234567, float("nan"))] == ["1", "123,456", "0.123457", "nan"]
    assert [duration_text(seconds) for seconds in (0.04, 12.4, 200, 7500)] == ["0.0 s", "12 s", "3 min 20 s", "2 h 05 min"]
    assert [count_text(count, "tensor") for count in (1, 1200)] == ["1 tensor", "1,200 tensors"]


def test_tables_shrink_where_they_may():
    rows = [("a" * 30, "12"), ("b", "3")]
    table = Table([name_column("name"), number_column("size")], rows, 24)

    assert [table.line(row) for row in rows] == ["aaaaa...aaaaaaaaaa    12"[:24], "b                      3"]


def test_labels_never_push_a_text_over_the_edge():
    screen = Screen(io.StringIO(), width=40)

    assert max(map(len, labelled([("l" * 100, "t" * 100), ("x", "y")], screen))) <= 40


def test_wrapped_lines_keep_every_character():
    text = "tensor " + "x" * 50 + " differs: expected 1, found 2"

    assert max(map(len, wrapped(text, 20))) <= 20
    assert "".join(wrapped(text, 20)).replace(" ", "") == text.replace(" ", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "is_enabled"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(stream, environment, is_enabled):
    assert style_for(stream, environment).is_enabled is is_enabled


def test_style_wraps_text_or_leaves_it():
    assert Style(is_enabled=True).red("x") == "\x1b[31mx\x1b[0m"
    assert Style(is_enabled=False).bold("x") == "x"


@pytest.mark.parametrize(
    ("node", "kind", "text"),
    [
        (None, "None", ""),
        (True, "bool", "True"),
        (3, "int", "3"),
        (1e-5, "float", "1e-05"),
        ("a\nb\u202e", "str", "'a\\nb\\u202e'"),
        (b"\x00\x01", "bytes", "2 B b'\\x00\\x01'"),
        ([], "list", "[]"),
        ({}, "dict", "{}"),
        ([1, "a", None], "list", "[1, 'a', None]"),
        ({"$tuple": [1]}, "tuple", "(1,)"),
        ({"$set": [1, 2]}, "set", "{1, 2}"),
        ({"$deque": [5, [1]]}, "deque", "[1]"),
        ({"$int": b"\x01" + bytes(8)}, "int", str(2**64)),
        ({"$int": b"\x01" + bytes(1000)}, "int", "of 8,008 bits"),
        ({"$complex": [1.0, -2.0]}, "complex", "(1-2j)"),
        ({"$range": [0, 10, 2]}, "range", "0:10:2"),
        ({"$slice": [None, 5, None]}, "slice", "None:5"),
        ({"$path": ["posix", "data/train.csv"]}, "PosixPath", "data/train.csv"),
        ({"$datetime": ["2026-10-25T02:30:00", 0, {"zone": "Europe/Berlin"}]}, "datetime", "2026-10-25T02:30:00 Europe/Berlin"),
        ({"$timedelta": [-1, 86399, 0]}, "timedelta", "-1 day, 23:59:59"),
        ({"$uuid": bytes(range(16))}, "UUID", "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        ({"$numpy_scalar": ["float32", b"\xcd\xcc\xcc\x3d"]}, "numpy.float32", "0.1"),
        ({"$numpy_scalar": ["numpy:<U2", "ab".encode("utf-32-le")]}, "numpy.<U2", "'ab'"),
        ({"$numpy_dtype": "numpy:>f4"}, "numpy.dtype", ">f4"),
        ({"$torch_device": ["cuda", 1]}, "torch.device", "cuda:1"),
        ({"$torch_size": [2, 3]}, "torch.Size", "[2, 3]"),
        ({"$torch_generator": ["cpu", None, {"$tensor": [0, "torch", {}]}]}, "torch.Generator", "cpu"),
        ({"$registered": ["app.Point", {"x": 1}]}, "app.Point", "{...}"),
        ({"$registered": ["\x1b[2J", 1]}, "\\x1b[2J", "1"),
        ({"$unheard_of": [1]}, "$unheard_of", ""),
    ],
)
def test_values_are_shown_with_their_type(node, kind, text):
    assert (type_of(node), text_of(node)) == (kind, text)


@pytest.mark.parametrize(
    "node",
    [{"$int": 5}, {"$complex": [1]}, {"$uuid": "x"}, {"$timedelta": [10**12, 0, 0]}, {"$numpy_scalar": ["float32", b"1"]}, {"$path": []}],
)
def test_payloads_that_break_the_format_are_shown_as_unknown(node):
    assert text_of(node) == "?"
    assert type_of(node)


def test_a_tower_of_tags_is_shown_without_climbing_it():
    tower = 1
    for _ in range(300):
        tower = {"$registered": ["x", {"$set": [tower]}]}

    assert text_of(tower).startswith("{")


def test_sequences_lose_whole_elements():
    assert fitted(list(range(1000)), 30) == "[0, 1, 2, 3, 4, ... 995 more]"
    assert fitted({"$tuple": [0.1] * 100}, 30) == "(0.1, 0.1, 0.1, ... 97 more)"
    assert fitted("x" * 500, 20) == "'" + "x" * 16 + "..."


def test_element_types_of_numpy_are_shown_without_their_prefix():
    fields = 'numpy:{"fields":[["a","int8",0],["b","float32",4]],"size":8}'

    assert [dtype_text(dtype) for dtype in ("float32", "numpy:<M8[ns]", fields)] == ["float32", "<M8[ns]", "struct of 2 fields"]
