"""Limits of the house: a thin lib, modules with one reason to change, functions that fit on a screen."""

import ast

import pytest

PACKAGES = ("lib", "storage", "steering", "peers", "menagerie", "experiments", "widgets", "book/tools")


def modules(root, package: str) -> dict[str, list[str]]:
    """Lines of each module by path."""
    files = sorted((root / package).rglob("*.py"))
    return {str(file.relative_to(root)): file.read_text(encoding="utf-8").splitlines() for file in files}


def test_lib_has_at_most_eight_thousand_lines(root):
    assert sum(map(len, modules(root, "lib").values())) <= 8000


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_longer_than_350_lines(root, package):
    found = modules(root, package)
    assert found
    assert [name for name, lines in found.items() if len(lines) > 350] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_is_longer_than_40_lines(root, package):
    """From the line of its name to its last, docstring included."""
    functions = [
        (f"{name}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1)
        for name, lines in modules(root, package).items()
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert functions
    assert [name for name, length in functions if length > 40] == []
