"""The simulated world: virtual time, new users every day, and the module that blackopt's orders reach."""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from blackopt.serving import Arms, Refused, sign
from blackopt.types import Artifact
from retention_app import behaviour, pipeline
from retention_app.cohort import DAY_US, HOUR_US, UNITS_A_DAY, Cohort
from retention_app.log import EventLog, OrderRow
from retention_app.pipeline import INCUMBENT, BadConfigurationError, Configuration

CHUNK_US = 6 * HOUR_US
"""Virtual time in one transaction."""

MONDAY_US = 19_723 * DAY_US
"""2024-01-01 00:00 UTC, where virtual time starts."""

MAX_SHARE = 0.8
"""Part of all users that candidates may have together, whatever an order says."""

PUSH_PREFIX = "/blackopt"


class World:
    """One simulation; all its state is in ``directory/app.db``, where a new process goes on.

    Args:
        directory: of the log; must exist.
        seed: of everything random.
        users: new users on an average day.
        secrets: of orders; empty leaves them unsigned.
        incumbent: what production serves where blackopt has not made something else the incumbent.

    Raises:
        OtherRunError: the directory holds a simulation with other settings.
    """

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        users: int,
        secrets: tuple[str, ...] = (),
        incumbent: Configuration = INCUMBENT,
    ) -> None:
        if not 0 < users <= UNITS_A_DAY // 2:
            raise ValueError(f"users: expected 1 to {UNITS_A_DAY // 2} a day, got {users}")
        self._seed, self._users, self._secrets, self._incumbent = seed, users, secrets, incumbent
        self.path = directory / "app.db"
        settings = {"seed": str(seed), "users": str(users), "incumbent": incumbent.body().decode()}
        self._log = EventLog(self.path, settings, MONDAY_US)
        self._lock = threading.Lock()
        self._now_us = self._log.now_us
        self._module_us = self._now_us  # the time that the module's leases see
        self._cohorts: dict[int, Cohort] = {}
        self._leases: dict[str, int] = {}  # by campaign: when the last of its leases ends at the latest
        self._arms = Arms(
            accept=_accept,
            load=_load,
            incumbent=Artifact(incumbent.body()),
            secrets=list(secrets),
            max_share=MAX_SHARE,
            clock=lambda: (self._module_us - MONDAY_US) / 1e6,
        )
        self.refused = 0
        self._replay()

    @property
    def now_us(self) -> int:
        """Virtual time, microseconds since 1970."""
        return self._now_us

    # -- orders ----------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, headers: Mapping[str, str], raw: bytes) -> tuple[int, bytes]:
        """Answer a request below ``/blackopt``: an order, or the question what is live."""
        with self._lock:
            self._module_us = self._now_us
            status, body = self._arms.handle(method, path, headers, raw)
            if method == "POST" and status == 200:
                # In the journal before the sender hears of it: a module killed now knows it afterwards.
                key = {name.lower(): value for name, value in headers.items()}["idempotency-key"]
                self._log.add_order(self._order_row(path, key, raw, body))
            elif method == "POST":
                self.refused += 1
            return status, body

    def _order_row(self, path: str, key: str, raw: bytes, body: bytes) -> OrderRow:
        order = json.loads(raw)
        campaign = str(order["campaign"])
        self._note_lease(campaign, order, self._now_us)
        artifact = order.get("artifact")
        return OrderRow(
            kind=path.rpartition("/")[2],
            key=key,
            outcome=json.loads(body)["outcome"],
            campaign=campaign,
            trial=order.get("trial"),
            epoch=int(order["epoch"]),
            sha256=artifact["sha256"] if artifact else None,
            t_us=self._now_us,
            body=raw,
        )

    def _note_lease(self, campaign: str, order: Mapping[str, Any], now_us: int) -> None:
        lease_us = now_us + math.ceil(order.get("ttl_s", 0.0) * 1e6)
        self._leases[campaign] = max(lease_us, self._leases.get(campaign, 0))

    def _replay(self) -> None:
        """Bring the module and the users of the last days back to where the log says they are."""
        artifacts: dict[tuple[str, str], Configuration] = {}
        adopted: dict[str, list[tuple[int, Configuration]]] = {}
        for row in self._log.orders():
            self._module_us = row.t_us
            headers = {"idempotency-key": row.key, "content-type": "application/json"}
            if self._secrets:
                timestamp = int(time.time())
                signature = sign(self._secrets[0], row.key, timestamp, row.body)
                headers |= {
                    "webhook-id": row.key,
                    "webhook-timestamp": str(timestamp),
                    "webhook-signature": signature,
                }
            status, answer = self._arms.handle("POST", f"{PUSH_PREFIX}/{row.kind}", headers, row.body)
            if status != 200:
                raise RuntimeError(f"the module refuses an order of its own journal: {answer.decode()}")
            if row.kind == "withdraw":
                continue
            order = json.loads(row.body)
            configuration = pipeline.parse(base64.b64decode(order["artifact"]["body"]))
            if row.kind == "push":
                self._note_lease(row.campaign, order, row.t_us)
                artifacts[row.campaign, order["arm"]] = configuration
            else:
                adopted.setdefault(row.campaign, []).append((row.t_us, configuration))
        self._module_us = self._now_us
        today = self._now_us // DAY_US
        for campaign, unit, arm, t_us in self._log.exposed((today - behaviour.DAYS) * UNITS_A_DAY):
            day, index = divmod(unit, UNITS_A_DAY)
            then = [made for since_us, made in adopted.get(campaign, []) if since_us <= t_us]
            incumbent = then[-1] if then else self._incumbent
            self._cohort(day).serve(index, artifacts.get((campaign, arm), incumbent))

    # -- time ------------------------------------------------------------------------------------------

    def advance(self, until_us: int) -> int:
        """Live through the time until ``until_us``, but at most a day of it, so that a request stays short.

        Returns:
            The virtual time reached; the present one if ``until_us`` is past.
        """
        with self._lock:
            until_us = min(until_us, self._now_us + DAY_US)
            while self._now_us < until_us:
                end_us = min(until_us, (self._now_us // CHUNK_US + 1) * CHUNK_US)
                self._live_through(self._now_us, end_us)
                self._now_us = end_us
            return self._now_us

    def _live_through(self, start_us: int, end_us: int) -> None:
        """One transaction of the log: everything in [start_us, end_us), which lies inside one day."""
        day = start_us // DAY_US
        today = self._cohort(day)
        exposures = self._welcome(today, start_us, end_us)
        events = today.browsed_before(start_us, end_us)
        for first_day in range(day - behaviour.DAYS, day + 1):
            events += self._cohort(first_day).events_between(start_us, end_us)
        self._log.advance(end_us, exposures, events)
        for old in [d for d in self._cohorts if d < day - behaviour.DAYS]:
            del self._cohorts[old]

    def _welcome(self, cohort: Cohort, start_us: int, end_us: int) -> list[tuple[str, int, int, str, int]]:
        """Serve those who first open the app in [start_us, end_us), in order; their exposures."""
        exposures: list[tuple[str, int, int, str, int]] = []
        low, high = np.searchsorted(cohort.arrivals, [start_us, end_us]).tolist()
        # With two campaigns on one pipeline the last one (by name) is served; they should not share traffic.
        for campaign in sorted(name for name, lease_us in self._leases.items() if start_us < lease_us):
            for index, t_us in enumerate(cohort.arrivals[low:high].tolist(), start=low):
                self._module_us = t_us
                unit = cohort.unit(index)
                assignment = self._arms.assign(campaign, str(unit))
                if assignment.arm is not None:
                    exposures.append((campaign, assignment.window, unit, assignment.arm, t_us))
                    cohort.serve(index, assignment.value)
        self._module_us = end_us
        return exposures

    def _cohort(self, day: int) -> Cohort:
        if day not in self._cohorts:
            weekend = 1.15 if (day + 3) % 7 >= 5 else 0.94
            self._cohorts[day] = Cohort(self._seed, day, round(self._users * weekend), self._incumbent)
        return self._cohorts[day]

    # -- the rest --------------------------------------------------------------------------------------

    def health(self) -> dict[str, object]:
        """Counters for people and tests."""
        with self._lock:
            return {
                "ok": True,
                "now_us": self._now_us,
                "seed": self._seed,
                "users": self._users,
                "refused": self.refused,
                **self._log.counts(),
            }

    def serves(self, campaign: str, unit: str) -> dict[str, object]:
        """What somebody would get who first opens the app now, and in which arm; None outside of all."""
        with self._lock:
            self._module_us = self._now_us
            assignment = self._arms.assign(campaign, unit)
            return {"arm": assignment.arm, "configuration": asdict(assignment.value)}

    def close(self) -> None:
        """Wait for what is being done, and close the log."""
        with self._lock:
            self._log.close()


def _load(artifact: Artifact) -> Configuration:
    return pipeline.parse(artifact.body)


def _accept(artifact: Artifact) -> None:
    """The module's last word on what it will serve."""
    try:
        pipeline.parse(artifact.body)
    except BadConfigurationError as error:
        raise Refused(str(error)) from error
