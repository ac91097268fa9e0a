"""What runs inside a production module: it takes orders, leases arms, and says what to serve to each unit.

    from blackopt.serving import Arms, within

    arms = Arms(accept=within({"price": (1.0, 3.0)}), incumbent=artifact, secrets=[secret], state=path)
    status, body = arms.handle(method, path, headers, raw_body)  # from a route of the module's own server
    given = arms.assign("email-offer", customer_id)  # serve given.value; log given.arm and given.window

docs/protocol.md is the specification, for modules in other languages too.
"""

from __future__ import annotations

from blackopt.serving.answers import Refused
from blackopt.serving.arms import Arms
from blackopt.serving.batch import KeyedMlp
from blackopt.serving.bounds import within
from blackopt.serving.exposure import Exposure
from blackopt.serving.exposures import CallableLog, ExposureLog, FileLog, RedisLog, SqliteLog
from blackopt.serving.folder import ArmFiles
from blackopt.serving.live import Assignment
from blackopt.serving.models import Models
from blackopt.serving.sampler import Perturbed, Sampler
from blackopt.serving.server import make_server
from blackopt.serving.signature import sign

__all__ = [
    "ArmFiles",
    "Arms",
    "Assignment",
    "CallableLog",
    "Exposure",
    "ExposureLog",
    "FileLog",
    "KeyedMlp",
    "Models",
    "Perturbed",
    "RedisLog",
    "Refused",
    "Sampler",
    "SqliteLog",
    "make_server",
    "sign",
    "within",
]
