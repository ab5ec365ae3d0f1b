"""The lint of wording finds each thing that it refuses, and nothing in plain code."""

import check_words
import pytest

DOCSTRING = '''
def f(seed, path):
    """Splits.

    Args:
        seed: {text}
            of a continuation line, which is not the beginning.
        path (str): Path of the file.

    Returns:
        of: not an argument
    """
'''


def messages(source):
    return [message for _, message in check_words.findings(source)]


@pytest.mark.parametrize(
    "text",
    ["Random seed of the split.", "`None` for no seed.", "2-d array.", "(height, width) of an image.", "Offset."],
)
def test_argument_text_that_is_a_noun_phrase_is_accepted(text):
    assert messages(DOCSTRING.format(text=text)) == []


@pytest.mark.parametrize("text", ["of the split.", "Of the split."])
def test_argument_text_that_begins_with_of_is_refused(text):
    assert list(check_words.findings(DOCSTRING.format(text=text))) == [
        (6, "the text of 'seed' begins with 'of': write a noun phrase")
    ]


def test_argument_text_that_begins_with_a_small_letter_is_refused():
    assert messages(DOCSTRING.format(text="random seed.")) == ["the text of 'seed' must begin with a capital letter"]


def test_attributes_of_a_class_are_checked():
    source = 'class A:\n    """A.\n\n    Attributes:\n        x: of it.\n        *args: of them.\n    """\n'
    assert [number for number, _ in check_words.findings(source)] == [5, 6]


@pytest.mark.parametrize("name", sorted(check_words.NAMES))
@pytest.mark.parametrize("form", ["{} = 1", "def f({}): ...", "for {} in (): ...", "[{} for {} in ()]", "lambda {}: 0"])
def test_name_that_says_nothing_is_refused(form, name):
    assert messages(form.replace("{}", name)) == [f"the name {name!r} does not say what it holds"]


def test_name_of_another_library_may_be_read():
    assert messages("print(other.taught, said)") == []


@pytest.mark.parametrize("word", check_words.WORDS)
def test_word_with_a_standard_term_is_refused(word):
    assert messages(f"# {word.capitalize()}") == [f"use the standard technical term instead of {word!r}"]
    assert messages(f"x = 'un{word.replace(' ', '')}ed'") == []


def test_line_that_must_hold_the_word_is_skipped():
    assert messages("x = 'spine'  # words: skip") == []


def test_main_prints_the_place_and_returns_one(tmp_path, capsys):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.py").write_text("x = 1\nsaid = x\n")
    (tmp_path / "b.py").write_text("x = 1\n")
    assert check_words.main([str(tmp_path / "b.py")]) == 0
    assert check_words.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"{tmp_path}/sub/a.py:2: the name 'said' does not say what it holds\n"
    assert check_words.main([str(tmp_path / "none")]) == 2
