"""A campaign with `explore` from the command line: what `check` says of its store."""

from __future__ import annotations

from typing import Any

import pytest

EXPLORING = """\
version: 1
name: feed
policy: {use: parameters, space: {w: {weights: 20}}}
optimizer: {use: openai-es, sigma: 0.2, seed: 3}
explore: {unit: request, directions: 4, store: "%s"}
push: {use: file, directory: arms}
measure:
  use: sql
  url: sqlite:///app.db
  metrics: {clicked: {kind: proportion, query: clicked.sql, window: 1h}}
objective: {maximize: clicked, relative_to: control}
traffic: {unit: user, share: 100%%, control: 20%%}
budget: {trials: 16}
schedule: {window: 1d}
"""


@pytest.mark.parametrize(
    ("store", "result"),
    [
        ("centres", "reached, 0 labels"),
        ("memory://centres", "reached, 0 labels"),
        ("nothing-like-it://centres", "failed: this is no URL that fsspec opens"),
    ],
)
def test_check_says_whether_the_store_can_be_reached(folder: Any, store: str, result: str) -> None:
    folder.write("campaign.yaml", EXPLORING % store)
    folder.write("clicked.sql", "SELECT 'control' AS arm, 1 AS n, 1 AS sum")
    [line] = [row for row in folder.call("check", "-o", "json").data if row["section"] == "explore"]
    assert (line["use"], line["result"]) == (store, result)
