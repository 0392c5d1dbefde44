"""The package behind the book: small systems that the chapters run, show and test.

Importing it prints nothing, seeds nothing and draws nothing. It does one thing: unless the reader has chosen
otherwise it sets ``OMP_WAIT_POLICY=PASSIVE``, so that PyTorch's threads sleep while they wait for one another
instead of spinning. With two programs on the same cores spinning makes small models many times slower. The
variable is read once, when PyTorch loads, so it has to be set here, before anything below imports torch.

Example:
    >>> from dlbook import start
    >>> run = start("smoke", seed=0)
    dlbook ... · scale smoke · seed 0 · ...
    >>> run.pick(smoke=1, cpu=8, gpu=40)
    1
"""

import os
import sys

# True when torch was loaded first, too early for the line below to reach its threads; `start` then says so.
TORCH_WAS_FIRST = "torch" in sys.modules and "OMP_WAIT_POLICY" not in os.environ
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from dlbook.scale import Run, start  # noqa: E402  (torch must load after the line above)

__version__ = "0.1.0"

__all__ = ["Run", "__version__", "start"]
