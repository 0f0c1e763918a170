"""A build or notebook that is killed leaves nothing at work and nothing half-made; a rerun ends with the same bytes."""

import random

import pytest

from tests.killed_builds import Book

COMMANDS = {
    "build": ("book.tools.build", "--cores", "2"),
    "notebook": ("book.tools.run_notebook", "b", "--threads", "1"),
}


LONG = [pytest.param(name, 50, marks=pytest.mark.long) for name in COMMANDS]


@pytest.mark.parametrize(("name", "kills"), [("notebook", 1), *LONG])
def test_killed_at_random_moments_a_rerun_ends_with_the_same_bytes(name, kills, tmp_path, root, record_property):
    """Each round kills, once or several times in a row, and then runs to the end."""
    book, draw = Book.laid_out(tmp_path / "book", root, *COMMANDS[name]), random.Random(name)
    done = below = early = 0
    while done < kills:
        killed = book.kill(draw)
        done, below, early = done + (killed == "top"), below + (killed == "below"), early + (not killed)
        if not killed or draw.random() < 0.25 or done == kills:
            book.finish()
            assert book.made() == book.whole
            book.start_again()
        assert early < 2 * kills + 10, "it ends before it can be killed"
    record_property(f"kills of the {name}", done)
    record_property(f"kills of a process below the {name}", below)
