"""A taxonomy as a collapsible tree with pictures at its leaves: HTML that needs no kernel."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from IPython.display import HTML
from PIL import Image

from experiments.markup import as_html, own_html
from experiments.plots import data_uri


@dataclass(frozen=True)
class Leaf:
    """A species for `taxonomy_tree`: its taxa from the widest to itself, one or more pictures, a title, a note."""

    path: tuple[str, ...]
    pictures: Sequence[Image.Image]
    title: str = ""
    note: str = ""


def taxonomy_tree(leaves: Sequence[Leaf], ranks: Sequence[str], opened: int = 3, quality: int = 78) -> HTML:
    """The tree of `leaves` as HTML, opened for the first `opened` ranks; a leaf's path has a taxon for each rank.

    Works with the mouse and with the arrow keys, Enter and Space; opens and closes even where scripts are off.
    Raises ValueError for a leaf whose path does not fit the ranks.
    """
    for leaf in leaves:
        if len(leaf.path) != len(ranks):
            raise ValueError(f"The path of {leaf.path[-1]!r} has {len(leaf.path)} taxa for {len(ranks)} ranks.")
    branches = _branches(list(leaves), 0, ranks, opened, quality)
    name = f"tx-{hashlib.sha256(branches.encode()).hexdigest()[:8]}"  # the same tree is the same HTML in every run
    start = f"document.querySelectorAll('[data-tree={name}]').forEach(taxonomyTree)"
    folder = resources.files("widgets")
    style, script = ((folder / f"taxonomy_tree.{kind}").read_text() for kind in ("css", "js"))
    return own_html(
        f'<style>{style}</style><div class="tx" data-tree="{name}">'
        '<div class="tx-bar"><input type="search" placeholder="Find a species or taxon" aria-label="Find in the tree">'
        '<button type="button" data-do="open">Open all</button><button type="button" data-do="close">Close all</button>'
        '<span class="tx-found" role="status"></span></div><div class="tx-body"><div class="tx-tree">'
        f"{branches}</div>"
        '<aside class="tx-card" aria-live="polite"><p>Choose a species to see more of it.</p></aside></div></div>'
        f"<script>(() => {{ {script} {start} }})()</script>"
    )


def _branches(leaves: list[Leaf], depth: int, ranks: Sequence[str], opened: int, quality: int) -> str:
    """HTML of everything below one taxon: first single leaves, then branches with several leaves."""
    groups: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.path[depth], []).append(leaf)
    single = [group[0] for group in groups.values() if len(group) == 1]
    parts = [_leaf(leaf, depth, ranks, quality) for leaf in single]
    text = f'<div class="tx-leaves">{"".join(parts)}</div>' if parts else ""
    for taxon, group in groups.items():
        if len(group) > 1:
            chain, below = [taxon], depth + 1
            while below < len(ranks) - 1 and len({leaf.path[below] for leaf in group}) == 1:  # nothing branches here
                chain.append(group[0].path[below])
                below += 1
            label = " › ".join(f"<b>{as_html(taxon)}</b>" for taxon in chain)
            steps = as_html(" › ".join(ranks[depth:below]))
            text += (
                f"<details{' open' if depth < opened else ''}><summary><small>{steps}</small> {label} "
                f'<span class="tx-count">{len(group)}</span><span class="tx-faces" aria-hidden="true"></span></summary>'
                f"{_branches(group, below, ranks, opened, quality)}</details>"
            )
    return text


def _leaf(leaf: Leaf, depth: int, ranks: Sequence[str], quality: int) -> str:
    """HTML of a button with the species' picture; the content of its card is in a template inside."""
    name, title = as_html(leaf.path[-1]), as_html(leaf.title)
    images = [f'<img src="{data_uri(picture, quality=quality)}" alt="{name}">' for picture in leaf.pictures]
    lineage = "".join(
        f"<dt>{as_html(rank)}</dt><dd>{as_html(taxon)}</dd>" for rank, taxon in zip(ranks, leaf.path, strict=True)
    )
    more = (
        f"<h4>{name}</h4><em>{title}</em><div>{''.join(images[1:])}</div><dl>{lineage}</dl><p>{as_html(leaf.note)}</p>"
    )
    taxon = leaf.path[depth] if depth < len(ranks) - 1 else leaf.title
    words = as_html(" ".join((*leaf.path, leaf.title)).lower())
    return (
        f'<button type="button" class="tx-leaf" data-words="{words}">{images[0]}<span>{name}</span>'
        f"<small>{as_html(taxon)}</small><template>{more}</template></button>"
    )
