"""What all widgets share: a state that a saved page stores, in JSON and packed bytes."""

from __future__ import annotations

import base64
import inspect
import json
from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent


def joined(*scripts: str) -> str:
    """One module's source, from files of this folder."""
    return "\n".join((HERE / name).read_text("utf-8") for name in scripts)


class StoredWidget(anywidget.AnyWidget):
    """A widget whose numbers are one packed block; `meta` says where each array lies (`widgets.packing.pack`)."""

    meta = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)

    def __init_subclass__(cls, **settings) -> None:
        """Give the class the signature of its constructor; traitlets' own takes any arguments."""
        super().__init_subclass__(**settings)
        constructor = inspect.signature(cls.__init__)
        cls.__signature__ = constructor.replace(parameters=list(constructor.parameters.values())[1:])

    @property
    def state_size(self) -> int:
        """Bytes that the widget adds to a page: its JSON, scripts and styles, and its binary parts as base64."""
        state = self.get_state()
        binary = {name for name, value in state.items() if isinstance(value, bytes | memoryview)}
        text = json.dumps({name: value for name, value in state.items() if name not in binary})
        return len(text.encode()) + sum(len(base64.b64encode(state[name])) for name in binary)
