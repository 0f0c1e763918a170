"""The taxonomy tree: every leaf with its pictures and lineage, in one piece of HTML that asks for nothing."""

import re

import pytest
from PIL import Image

from widgets.taxonomy_tree import Leaf, taxonomy_tree

RANKS = ("class", "family", "species")


def leaf(*path: str, note: str = "") -> Leaf:
    return Leaf(path, [Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "red")], title=f"Latin {path[-1]}", note=note)


LEAVES = [
    leaf("Aves", "Anatidae", "duck"),
    leaf("Aves", "Anatidae", "swan"),
    leaf("Aves", "Corvidae", "crow"),
    leaf("Fungi", "Amanitaceae", "mushroom"),
]


def test_every_leaf_is_a_button_with_its_picture_lineage_and_name():
    page = taxonomy_tree(LEAVES, RANKS).data
    assert len(re.findall(r'<button type="button" class="tx-leaf"', page)) == 4
    assert page.count("<img src=") == 8
    assert "<dt>family</dt><dd>Anatidae</dd>" in page


def test_a_taxon_with_several_leaves_is_a_branch_that_counts_them():
    page = taxonomy_tree(LEAVES, RANKS).data
    branches = re.findall(r"<summary><small>(.*?)</small> <b>(.*?)</b> <span class=\"tx-count\">(\d+)<", page)
    assert branches == [("class", "Aves", "3"), ("family", "Anatidae", "2")]


def test_taxa_that_do_not_branch_share_one_line():
    page = taxonomy_tree(LEAVES[:2], RANKS).data
    assert "class › family" in page
    assert page.count("<summary>") == 1


def test_branches_are_open_down_to_the_rank_asked_for():
    assert taxonomy_tree(LEAVES, RANKS, opened=1).data.count("<details open>") == 1
    assert taxonomy_tree(LEAVES, RANKS, opened=0).data.count("<details open>") == 0


def test_the_tree_asks_for_nothing_outside_itself():
    page = taxonomy_tree(LEAVES, RANKS).data
    assert not re.search(r"https?://|<link|@import|fetch\(", page)


def test_names_and_notes_are_escaped():
    page = taxonomy_tree([leaf("<A>", "B", "C", note="<script>")], RANKS).data
    assert "&lt;A&gt;" in page
    assert "<p>&lt;script&gt;</p>" in page


def test_the_same_tree_is_the_same_html_in_every_run():
    assert taxonomy_tree(LEAVES, RANKS).data == taxonomy_tree(LEAVES, RANKS).data


def test_two_trees_on_a_page_do_not_share_an_identifier():
    first, second = (
        re.search(r'data-tree="(tx-\w+)"', taxonomy_tree(leaves, RANKS).data)[1] for leaves in (LEAVES, LEAVES[1:])
    )
    assert first != second


def test_a_path_that_does_not_fit_the_ranks_is_an_error():
    with pytest.raises(ValueError, match="The path of 'duck' has 2 taxa for 3 ranks"):
        taxonomy_tree([leaf("Aves", "duck")], RANKS)
