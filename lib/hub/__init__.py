"""Loading and sharing SAEs: files of this project and of other libraries, and the Hugging Face hub.

`formats` loads any SAE; the readers of other libraries are registered by packages (`peers`, see `lib.registry`).
`remote` downloads from the hub and pushes to it, `card` writes the model card.
"""

from lib.hub.formats import load_sae
from lib.hub.remote import package_sae, push_sae

__all__ = ["load_sae", "push_sae", "package_sae"]


def __getattr__(name: str):
    """Raise AttributeError; for `export_saelens`, which has moved to `peers`, it says so."""
    from lib import missing

    raise missing(__name__, name)
