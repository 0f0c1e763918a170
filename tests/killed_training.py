"""Trainings that end at a step, as if they had been killed there."""

import lib.sae.training


class Killed(Exception):
    pass


def kill_at(monkeypatch, step: int) -> None:
    """From now on a training raises `Killed` before it takes this step."""
    advance = lib.sae.training.Run.advance

    def dying(run, x):
        if run.step == step:
            raise Killed
        advance(run, x)

    monkeypatch.setattr(lib.sae.training.Run, "advance", dying)
