"""blackopt moves a business metric that nobody can differentiate.

The public names are the ones in ``__all__``; they are imported when first used, so that ``import blackopt``
and ``blackopt --help`` cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blackopt.errors import BlackoptError
    from blackopt.ledger import Ledger
    from blackopt.runner.notices import Notice
    from blackopt.runner.results import Results
    from blackopt.sdk import Campaign, Optimizer
    from blackopt.space import Space

__version__ = "0.1.0"

_HOMES = {
    "BlackoptError": "blackopt.errors",
    "Campaign": "blackopt.sdk",
    "Ledger": "blackopt.ledger",
    "Notice": "blackopt.runner.notices",
    "Optimizer": "blackopt.sdk",
    "Results": "blackopt.runner.results",
    "Space": "blackopt.space",
}

__all__ = ["BlackoptError", "Campaign", "Ledger", "Notice", "Optimizer", "Results", "Space", "__version__"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'blackopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
