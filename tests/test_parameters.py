"""What a value means that is given for a notebook's parameter: by the type that the parameters cell declares."""

import math

import pytest

from experiments.parameters import Count, Natural, NonNegative, Positive, Share, check_parameters, kind_of, read


@pytest.mark.parametrize(
    ("annotation", "given", "meant"),
    [
        ("int", -3, -3), ("int", "-3", -3), ("Count", 1000.0, 1000), ("Count", "1e3", 1000),
        ("Natural", "10_000", 10_000), ("float", 8, 8), ("float", "5e-4", 5e-4), ("Share", 1, 1),
        ("NonNegative", 0, 0), ("str", "forest, meadow", "forest, meadow"), ("str", 7, "7"), ("str", "", ""),
        ("bool", "True", True), ("bool", False, False), ("dict", {}, {}),
        ("dict", "{people: [0, 1]}", {"people": [0, 1]}), ("list[Count]", 8, [8]), ("list[Count]", "8,16", [8, 16]),
        ("list[Positive]", "[0.5, 2]", [0.5, 2]), ("list[Count]", [8.0], [8]), ("list[Count]", (8, 16), [8, 16]),
        ("list[float]", "-4,1", [-4, 1]), ("list[str]", "3.resid_post,proj", ["3.resid_post", "proj"]),
        ("list[str]", "", []), ("list[str]", [], []),
        ("list[str]", "habitat is forest, meadow,kind is sign", ["habitat is forest, meadow", "kind is sign"]),
        ("list[Count]", "8, 16", [8, 16]), ("list[str]", "['a,b', c]", ["a,b", "c"]),
    ],
)  # fmt: skip
def test_a_value_is_read_by_the_type_that_is_declared(annotation, given, meant):
    value = read("p", kind_of(annotation), given)
    assert value == meant
    assert type(value) is type(meant)


@pytest.mark.parametrize(
    ("annotation", "given", "says"),
    [
        ("Count", 2.5, "p must be a whole number, 1 or more, not 2.5"), ("Count", 0, "1 or more, not 0"),
        ("Count", True, "not True"), ("Count", "many", "not 'many'"), ("Count", None, "not None"),
        ("Count", 1e30, "p must be a whole number, 1 or more, at most 1e.15, not 1e.30"),
        ("Count", "1" + "0" * 400, "1 or more, at most 1e.15"), ("float", -1e300, "a number, at most 1e.15"),
        ("Natural", -1, "0 or more"), ("int", math.inf, "a whole number, not inf"),
        ("float", "nan", "a number, not 'nan'"), ("Positive", 0, "above 0"), ("Share", 1.2, "from 0 to 1"),
        ("NonNegative", -0.1, "0 or more"), ("str", None, "a text"), ("str", ["a"], "a text"),
        ("bool", 1, "True or False"), ("bool", "yes", "True or False"), ("dict", "[1]", "a mapping"),
        ("list[Count]", "8,a", "1 or more, not 'a'"), ("list[Count]", "[8", "a list such as"),
        ("list[Count]", "[" * 3000, "a list such as"),
        ("list[Count]", {"a": 1}, "not {'a': 1}"), ("Kind", "nokind", "one of archetypal, .*, not 'nokind'"),
        ("Kind", "signed_topk", "one of"), ("list[Kind]", "topk,nokind", "not 'nokind'"),
        ("Site", "7.resid", "a site such as 7.resid_post, or proj, not '7.resid'"), ("Site", 7, "not 7"),
        ("list[Site]", "", "p must hold a site .*, and it is empty"), ("list[Kind]", [], "p must hold one of"),
        ("OnError", "ignore", "one of raise, skip, not 'ignore'"), ("str", ["x" * 500], r"\.\.\.$"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence_that_names_it(annotation, given, says):
    with pytest.raises(ValueError, match=says) as refusal:
        read("p", kind_of(annotation), given)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 160


@pytest.mark.parametrize(
    "annotation", ["Number", "list[Number]", "dict[str]", "__import__('os')", "list[list[int]]", ""]
)
def test_a_type_that_no_value_can_be_read_by_is_refused(annotation):
    with pytest.raises(ValueError, match="is no type of a parameter"):
        kind_of(annotation)


class TestANotebooksOwnCheck:
    def test_it_leaves_the_values_as_they_are_declared(self):
        cell = {"Count": Count, "Share": Share}
        exec("steps: Count = 5\nsizes: list[Count] = [1]\nshare: Share = 0.5", cell)
        cell |= {"steps": 1e3, "sizes": 8}
        check_parameters(cell)
        assert (cell["steps"], cell["sizes"], cell["share"]) == (1000, [8], 0.5)

    def test_it_refuses_a_value_that_does_not_fit(self):
        cell = {"Natural": Natural, "NonNegative": NonNegative, "Positive": Positive}
        exec("seed: Natural = 0\nprice: NonNegative = 0\nsize: Positive = 1", cell)
        with pytest.raises(ValueError, match="size must be a number above 0, not 0"):
            check_parameters(cell | {"size": 0})

    def test_annotations_of_a_readers_own_cells_are_no_parameters(self):
        cell = {"Table": type("Table", (), {})}
        exec("mine: Table = None\nlater: int", cell)
        check_parameters(cell)
        assert cell["mine"] is None
