"""Who sees what: blackopt's own splitter, and those of other systems that users already run."""

from __future__ import annotations

from blackopt.traffic.splitter import BUCKETS, allocate, assign, bucket

__all__ = ["BUCKETS", "allocate", "assign", "bucket"]
