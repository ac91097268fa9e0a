"""The ledger: everything that happened in one campaign, in one SQLite file that survives anything.

:class:`Ledger` reads; :class:`Driver`, made by :meth:`Ledger.drive`, is the only writer. The rows that go in
and come out are in :mod:`blackopt.ledger.rows`. An optimizer's state becomes bytes, and is read again,
without pickle.
"""

from __future__ import annotations

from blackopt.ledger.codec import dump_state, load_state
from blackopt.ledger.driver import Driver
from blackopt.ledger.ledger import Ledger

__all__ = ["Driver", "Ledger", "dump_state", "load_state"]
