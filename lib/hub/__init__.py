"""Dictionaries to and from elsewhere: the Hugging Face hub and the files of other libraries.

`formats` says which library wrote a checkpoint and reads it; one module beside it for each library. `safe_files` opens
files without running anything that is in them, `assembly` brings every library's conventions to those of `lib.SAE`,
`remote` talks to the hub, `card` writes what a pushed dictionary says about itself.
"""

from lib.hub.formats import load_sae
from lib.hub.remote import package_sae, push_sae
from lib.hub.saelens import export_saelens

__all__ = ["load_sae", "push_sae", "package_sae", "export_saelens"]
