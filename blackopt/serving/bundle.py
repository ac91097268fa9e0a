"""Takes one module's part from what the policy ``composite`` renders.

from blackopt.serving import Arms
from blackopt.serving.bundle import part

load = lambda artifact: Mlp.load(part(artifact, "ranker"))
arms = Arms(load=load, accept=load, incumbent=bundle, secrets=[secret])
"""

from __future__ import annotations

import base64
import json

from blackopt.serving.answers import Refused
from blackopt.types import Artifact


def part(artifact: Artifact, name: str) -> Artifact:
    """The artifact of one part, as the part's own policy rendered it.

    Args:
        artifact: a bundle.
        name: of the part, as under ``policy.parts`` in the campaign.

    Raises:
        Refused: not a bundle, no such part in it, or bytes that are not those it announces.
    """
    try:
        parts = json.loads(artifact.body)["parts"]
        if name not in parts:
            raise Refused(f"the bundle has no part {name!r}, only {', '.join(parts)}")
        entry = parts[name]
        body = entry["text"].encode() if "text" in entry else base64.b64decode(entry["base64"], validate=True)
        found = Artifact(body, entry["media_type"])
        announced = entry["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"not a bundle of the policy composite: {type(error).__name__}: {error}") from error
    if found.sha256 != announced:
        raise Refused(f"{name}: its sha256 is {found.sha256}, but {announced} was announced")
    return found
