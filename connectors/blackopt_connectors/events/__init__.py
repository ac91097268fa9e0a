"""From raw events to readings: a table of exposures and a table of events give every kind of metric.

:class:`EventsSource` is the plug-in ``use: events``; :mod:`blackopt_connectors.events.frames` computes the
same from pandas data frames; ``python -m blackopt_connectors.events`` prints the query of a metric.
"""

from __future__ import annotations

from blackopt_connectors.events.options import EventsMetricOptions, EventsOptions
from blackopt_connectors.events.source import EventsSource

__all__ = ["EventsMetricOptions", "EventsOptions", "EventsSource"]
