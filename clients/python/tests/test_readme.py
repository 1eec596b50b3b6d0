"""What the README shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake import Call, Fail, Informerd, initial, mark, message, readiness_mark, upsert, verdict
from informerd import CallError, Objects
from informerd.v1 import cache_pb2, readiness_pb2
from test_credentials import Files

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
OVER = Fail(grpc.StatusCode.PERMISSION_DENIED, "the example is over")


def run(block: str, server: Informerd, **names: Any) -> None:
    """Until its endless loop is refused to go on."""
    assert "127.0.0.1:7443" in block
    with pytest.raises(CallError, match="the example is over"):
        exec(compile(block.replace("127.0.0.1:7443", server.address), "README.md", "exec"), names)


def satisfied() -> readiness_pb2.WaitReadinessResponse:
    return readiness_pb2.WaitReadinessResponse(outcome=readiness_pb2.WAIT_OUTCOME_SATISFIED)


def test_the_blocking_example(capsys: pytest.CaptureFixture[str]) -> None:
    pod = cache_pb2.Object(namespace="default", name="web-0", object=b'{"spec":{"nodeName":"n1"}}')
    listed = cache_pb2.ListObjectsResponse(objects=[pod], end=cache_pb2.ListEnd(count=1))
    events = [*initial(upsert("web-0", 1), token=b"1"), message(upsert("web-0", 2), mark=mark("PROGRESS", b"2"))]
    gone = cache_pb2.Event(type=cache_pb2.EVENT_TYPE_DELETE, namespace="default", name="web-0", uid="uid-web-0")
    events.append(message(gone, mark=mark("PROGRESS", b"3")))
    with Informerd(
        GetObject=[Call([cache_pb2.GetObjectResponse(object=pod)])],
        ListObjects=[Call([listed])],
        WaitReadiness=[Call([satisfied()])],
        WatchObjects=[Call(events, OVER)],
    ) as server:
        run(BLOCKS[0], server)
    said = capsys.readouterr().out.splitlines()
    assert said == ["n1 as of None s ago", "default/web-0", "default/web-0 1", "default/web-0 2", "default/web-0 gone"]


def test_the_example_for_asyncio(capsys: pytest.CaptureFixture[str]) -> None:
    reset = readiness_pb2.WatchReadinessResponse(mark=readiness_mark("RESET"))
    event = readiness_pb2.ReadinessEvent(
        type=cache_pb2.EVENT_TYPE_UPSERT, verdict=verdict("cache", "READY", reason="Joined")
    )
    told = readiness_pb2.WatchReadinessResponse(events=[event])
    lost = Fail(grpc.StatusCode.UNAVAILABLE, "lost")
    with Informerd(WatchReadiness=[Call([reset, told], lost), Call([], OVER)]) as server:
        run(BLOCKS[1], server)
    verdicts, cut = capsys.readouterr().out.splitlines()
    assert verdicts == "deployments.apps/cache READY Joined False"
    assert cut == "lost; trying again in 0.1 s"


def test_the_example_of_a_wait_after_a_write() -> None:
    written = {"metadata": {"namespace": "default", "name": "web", "resourceVersion": "17"}}
    with Informerd(WaitReadiness=[Call([satisfied()]), Call([satisfied()])]) as server:
        import informerd

        with informerd.Client(server.address) as client:
            exec(BLOCKS[2], {**vars(informerd), "client": client, "written": written})
        by_version, by_generation = server.script.asked_of("WaitReadiness")
    assert by_version.targets[0].min_resource_version == "17"
    assert by_generation.targets[0].min_generation == 7


def test_the_example_of_signing_in(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = Files(tmp_path)
    listed = cache_pb2.ListObjectsResponse(objects=[cache_pb2.Object(name="web-0")], end=cache_pb2.ListEnd(count=1))
    with Informerd(files.server(), ListObjects=[Call([listed])]) as server:
        block = BLOCKS[3].replace("https://informerd.informerd:7443", server.address)
        block = block.replace("/etc/informerd/ca.crt", str(tmp_path / "ca.crt"))
        block = block.replace("/var/run/secrets/tokens/informerd", str(tmp_path / "token"))
        exec(block, {"Objects": Objects})
        assert server.script.shown == [("Bearer first", "")]
    assert capsys.readouterr().out == "1\n"
