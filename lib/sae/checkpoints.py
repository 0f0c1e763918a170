"""Training checkpoints: all that the next step depends on, in one file with its digest."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lib.devices import bring
from storage import load_tensors, replacing, save_tensors

if TYPE_CHECKING:
    from lib.sae.training import Run

CHECKPOINT = "checkpoint"  # the folder of the checkpoint within that of the SAE
_STATE = "state.safetensors"


def save_checkpoint(run: Run) -> None:
    """Write the state of the run over its last checkpoint, atomically."""
    tensors = {f"sae.{name}": tensor for name, tensor in run.sae.state_dict().items()}
    for name, parameter in run.parameters.items():
        tensors |= {f"adam.{name}.{key}": value for key, value in run.adam.state[parameter].items()}
    tensors |= {f"own.{name}": run.parameters[name] for name in _extra_parameters(run)}
    tensors["since_fired"] = run.objective.since_fired
    state = {"hash": run.meta["hash"], "step": run.step, "scales": run.scales, "memory": run.objective.memory}
    with replacing(run.folder / CHECKPOINT / _STATE) as temporary:
        save_tensors(tensors, temporary, {"run": json.dumps({**state, "rows": run.log.rows})})


def restore_checkpoint(run: Run) -> list[dict[str, float]]:
    """Restore the run from its last checkpoint, and return the rows of its log until then.

    A damaged checkpoint is named in a warning; then, as without a checkpoint, the run starts at its first step.
    """
    try:
        tensors, metadata = load_tensors(run.folder / CHECKPOINT / _STATE)
        state = json.loads(metadata.get("run", "{}"))
    except (OSError, ValueError) as error:
        if (run.folder / CHECKPOINT / _STATE).exists():
            warnings.warn(f"{error}; training begins again with its first step.", stacklevel=2)
        return []
    if state.get("hash") != run.meta["hash"]:
        return []
    run.step, run.scales = state["step"], state["scales"]
    run.sae.load_state_dict({key[4:]: value for key, value in tensors.items() if key.startswith("sae.")})
    for name in _extra_parameters(run):
        run.parameters[name].copy_(tensors[f"own.{name}"])
    run.objective.compose()
    for name, parameter in run.parameters.items():
        moments = {
            key: torch.empty_like(parameter).copy_(tensors[f"adam.{name}.{key}"]) for key in ("exp_avg", "exp_avg_sq")
        }
        run.adam.state[parameter] = {"step": bring(tensors[f"adam.{name}.step"], parameter), **moments}
    run.objective.since_fired.copy_(tensors["since_fired"])
    run.objective.memory.update(state["memory"])
    return state["rows"]


def remove_checkpoint(folder: Path) -> None:
    """Remove a finished SAE's checkpoint; one that cannot be removed does no harm."""
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def _extra_parameters(run: Run) -> list[str]:
    """Names of trained parameters that are not part of the SAE."""
    return [name for name in run.parameters if name not in run.sae.state_dict()]
