"""A client of informerd: cached Kubernetes objects and readiness verdicts, read, watched and waited for.

>>> import informerd
>>> with informerd.Client("127.0.0.1:7443") as client:          # doctest: +SKIP
...     for event in client.watch(informerd.Objects("pods", namespaces="default")):
...         print(event)

:class:`Client` blocks, :class:`AsyncClient` is for asyncio; apart from that they are the same. What is listed and
watched is a value, :class:`Objects` or :class:`Verdicts`. A watch resumes by itself; give its events to a
:class:`Mirror` to keep a copy.
"""

from informerd.aio import AsyncClient, AsyncWatch
from informerd.client import Client, Watch
from informerd.credentials import Credentials
from informerd.errors import CallError, ContractError, Differs, Ended, Error, Incomplete, NotFound, Silent, Violation
from informerd.events import Delete, Event, Mark, MarkType, Reconnecting, ResetBegin, ResetEnd, Upsert
from informerd.feeds import Changes, Delivery, Feed, Objects, OnGap, OnRevoke, Verdicts, View
from informerd.listed import Listed
from informerd.mirror import Change, Mirror
from informerd.model import (
    Condition,
    DeleteCause,
    Evidence,
    Freshness,
    KindState,
    Object,
    ObjectKey,
    Part,
    Position,
    State,
    Target,
    Verdict,
)
from informerd.waiting import Missing, OnProgress, Outcome, Progress, Waited, WaitResult, WaitTarget

__all__ = [
    "AsyncClient",
    "AsyncWatch",
    "CallError",
    "Change",
    "Changes",
    "Client",
    "Condition",
    "ContractError",
    "Credentials",
    "Delete",
    "DeleteCause",
    "Delivery",
    "Differs",
    "Ended",
    "Error",
    "Event",
    "Evidence",
    "Feed",
    "Freshness",
    "Incomplete",
    "KindState",
    "Listed",
    "Mark",
    "MarkType",
    "Mirror",
    "Missing",
    "NotFound",
    "Object",
    "ObjectKey",
    "Objects",
    "OnGap",
    "OnProgress",
    "OnRevoke",
    "Outcome",
    "Part",
    "Position",
    "Progress",
    "Reconnecting",
    "ResetBegin",
    "ResetEnd",
    "Silent",
    "State",
    "Target",
    "Upsert",
    "Verdict",
    "Verdicts",
    "View",
    "Violation",
    "WaitResult",
    "WaitTarget",
    "Waited",
    "Watch",
]
