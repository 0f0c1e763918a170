"""`storage.distributed`, the work that several processes share, under the name that scripts import."""

import sys

from storage import distributed

sys.modules[__name__] = distributed
