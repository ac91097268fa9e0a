"""Systems that call a command again and again; apart from the verb, so that ``--help`` stays light."""

from __future__ import annotations

from enum import StrEnum


class Scheduler(StrEnum):
    """Who calls."""

    CRONTAB = "crontab"
    SYSTEMD = "systemd"
    KUBERNETES = "kubernetes"
    AIRFLOW = "airflow"
