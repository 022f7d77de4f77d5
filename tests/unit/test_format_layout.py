"""Names and limits that reader and writer share. Spec 3 and 6."""

import pytest

from ckptfmt.format import layout


@pytest.mark.parametrize("name", ["a", "_", "0", "model-00001-3fa98c12.safetensors", "a..b", "a" * 128])
def test_plain_names_are_file_names(name):
    assert layout.is_file_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "a.", "a/b", "a\\b", "A", "ä", "a b", "a\n", "-a", "a" * 129, "manifest.json", "a\x00"]
)
def test_other_names_are_not(name):
    assert not layout.is_file_name(name)


@pytest.mark.parametrize("section", ["model", "Model", "Überschrift / 1", "日本", "", None, "a" * 200, "../..", "-x"])
def test_the_stem_of_any_section_makes_a_name_for_a_data_file(section):
    stem = layout.section_stem(section)
    name = f"{stem}-00001-{'0' * 64}.safetensors"
    assert layout.is_file_name(name)
    assert layout.is_data_name(name)


def test_stems_are_lower_case_and_short():
    assert layout.section_stem("Model.X") == "model_x"
    assert layout.section_stem("a" * 200) == "a" * 40
    assert layout.section_stem("") == layout.section_stem(None) == "state"


def test_temporary_names_are_known_and_never_file_names():
    for stem in ("manifest", "metadata", "model-00001"):
        name = layout.temporary_name(stem, "0123456789abcdef" * 2)
        assert layout.is_temporary_name(name)
        assert not layout.is_file_name(name)
        assert not layout.is_data_name(name)


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "manifest.json", "model.safetensors", "model-1-00.safetensors", ".model.tmp", "model-00001-3fa98c12.safetensors.bak"],
)
def test_files_of_others_are_neither_data_nor_temporary(name):
    assert not layout.is_data_name(name)
    assert not layout.is_temporary_name(name)


@pytest.mark.parametrize("name", ["w", "a.b", " ", "é" * 256, "..", "/", "format", "\u2028", "\xa0"])
def test_tensor_names_are_any_text(name):
    assert layout.is_tensor_name(name)


@pytest.mark.parametrize("name", ["", "x" * 513, "é" * 257, "a\nb", "a\x00", "\x7f", "\x85", "__metadata__", "\ud800"])
def test_tensor_names_have_limits(name):
    assert not layout.is_tensor_name(name)


@pytest.mark.parametrize("shape", [[], [0], [2**48 - 1], [1] * 64])
def test_shapes_are_lists_of_sizes(shape):
    assert layout.is_shape(shape)


@pytest.mark.parametrize("shape", [None, (), [1] * 65, [2**48], [-1], [1.0], [True], ["1"], {}])
def test_other_values_are_no_shapes(shape):
    assert not layout.is_shape(shape)


@pytest.mark.parametrize("name", ["codec:zstd", "a", "x" * 64, "a.b_c-d:1"])
def test_features_have_plain_names(name):
    assert layout.is_feature_name(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "codec zstd", "Codec", "a\n", None, 1])
def test_other_values_are_no_features(name):
    assert not layout.is_feature_name(name)
