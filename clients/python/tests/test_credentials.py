"""Who a client says that it is, and how it goes on when that is replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from both import Both, marked, short
from fake import Call, Fail, Informerd, initial, mark, message, upsert
from informerd import AsyncClient, CallError, Client, Credentials, Objects
from informerd import channel as channels
from informerd import follow
from informerd.v1 import cache_pb2, readiness_pb2

PODS = Objects("pods")
Clients = Callable[..., Both]

EXPIRED = Fail(grpc.StatusCode.UNAUTHENTICATED, "the credentials have expired", reason="CREDENTIALS_EXPIRED")
LOST = Fail(grpc.StatusCode.UNAVAILABLE, "the connection broke")
LISTED = cache_pb2.ListObjectsResponse(end=cache_pb2.ListEnd())


class Files:
    """An authority, and what it has signed, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.crt")
        self.token("first\n")
        self.own = Credentials(ca=folder / "ca.crt", token_file=folder / "token")
        self.with_certificate = Credentials(
            ca=folder / "ca.crt", certificate=folder / "client.crt", key=folder / "client.key"
        )

    def token(self, text: str) -> None:
        (self.folder / "token").write_text(text)

    def client(self, name: str) -> None:
        signed = self.authority.issue_cert("client.invalid", common_name=name)
        signed.private_key_pem.write_to_path(self.folder / "client.key")
        signed.cert_chain_pems[0].write_to_path(self.folder / "client.crt")

    def server(self, clients: bool = False) -> grpc.ServerCredentials:
        """What a server takes; one that asks for certificates, or not."""
        signed = self.authority.issue_cert("127.0.0.1")
        pair = (signed.private_key_pem.bytes(), signed.cert_chain_pems[0].bytes())
        return grpc.ssl_server_credentials([pair], self.authority.cert_pem.bytes() if clients else None, clients)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def until_expired(*between: Callable[[], Any]) -> Call:
    """A watch that ends as informerd ends it when the credentials have ended."""
    end = message(mark=mark("END", b"2", reason="CREDENTIALS_EXPIRED"))
    return Call([*initial(upsert("a", 1), token=b"1"), *between, end], EXPIRED)


GOES_ON = Call([message(upsert("b", 3), mark=mark("PROGRESS", b"3"))])


def test_a_token_goes_over_tls_with_each_call(client: Clients, files: Files) -> None:
    with Informerd(files.server(), ListObjects=[Call([LISTED]), Call([LISTED])]) as server:
        for token in ("first", "second\n"):
            files.token(token)
            client(server.address, files.own).call("list", PODS)
        assert server.script.shown == [("Bearer first", ""), ("Bearer second", "")]


def test_a_watch_goes_on_with_the_token_that_the_file_has_by_then(client: Clients, files: Files) -> None:
    replaced = until_expired(lambda: files.token("second"))
    with Informerd(files.server(), WatchObjects=[replaced, GOES_ON]) as server:
        told = client(server.address, files.own).watch(PODS, marked(b"3"))
        assert server.script.shown == [("Bearer first", ""), ("Bearer second", "")]
        assert [it.token for it in server.script.asked_of("WatchObjects")] == [b"", b"2"]
    words = short(told)
    assert words == ["RESET INITIAL", "+default/a@1", "RESET_END", "END", "cut: Ended", "+default/b@3", "PROGRESS"]


def test_a_token_that_is_replaced_late_is_waited_for(client: Clients, files: Files) -> None:
    with Informerd(files.server(), WatchObjects=[until_expired(lambda: script.end("Bearer first")), GOES_ON]) as server:
        script = server.script

        def refused(told: list[Any]) -> bool:
            if short(told[-1:]) == ["cut: CallError"]:
                files.token("second")
            return marked(b"3")(told)

        told = client(server.address, files.own).watch(PODS, refused)
        assert script.shown == [("Bearer first", ""), ("Bearer first", ""), ("Bearer second", "")]
        assert [it.token for it in script.asked_of("WatchObjects")] == [b"", b"2"]
    assert short(told)[-4:] == ["cut: Ended", "cut: CallError", "+default/b@3", "PROGRESS"]


def test_a_token_that_is_never_replaced_ends_the_watch(
    client: Clients, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_RENEWAL", 0.5)
    with Informerd(files.server(), WatchObjects=[until_expired(lambda: script.end("Bearer first"))]) as server:
        script = server.script
        with pytest.raises(CallError) as refused:
            client(server.address, files.own).watch(PODS, lambda told: False)
        assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
        assert len(script.shown) > 2


def test_a_wait_goes_on_with_the_token_that_the_file_has_by_then(client: Clients, files: Files) -> None:
    satisfied = readiness_pb2.WaitReadinessResponse(outcome=readiness_pb2.WAIT_OUTCOME_SATISFIED)
    calls = [Call([lambda: files.token("second")], EXPIRED), Call([satisfied])]
    with Informerd(files.server(), WaitReadiness=calls) as server:
        assert client(server.address, files.own).call("wait_readiness", "pod/web-0")
        assert server.script.shown == [("Bearer first", ""), ("Bearer second", "")]


def test_whoever_was_never_let_in_is_told_at_once(client: Clients, files: Files) -> None:
    with Informerd(files.server()) as server:
        server.script.end("Bearer first")
        with pytest.raises(CallError) as refused:
            client(server.address, files.own).watch(PODS, lambda told: False)
        assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
        assert len(server.script.shown) == 1


def test_a_token_file_that_is_empty_for_a_moment_is_read_again(client: Clients, files: Files) -> None:
    first = Call([*initial(upsert("a", 1), token=b"1"), lambda: files.token("")], LOST)
    with Informerd(files.server(), WatchObjects=[first, GOES_ON]) as server:

        def filled(told: list[Any]) -> bool:
            if short(told[-1:]) == ["cut: CallError"] and len(told) > 4:
                files.token("second")
            return marked(b"3")(told)

        told = client(server.address, files.own).watch(PODS, filled)
        assert server.script.shown == [("Bearer first", ""), ("Bearer second", "")]
        assert [it.token for it in server.script.asked_of("WatchObjects")] == [b"", b"1"]
    assert short(told).count("cut: CallError") == 2


@pytest.mark.parametrize("content", [b"\xff", b"two words", b"two\nlines", b""])
def test_what_is_no_token_is_not_sent_and_may_be_replaced(files: Files, content: bytes) -> None:
    (files.folder / "token").write_bytes(content)
    with pytest.raises(CallError) as refused:
        files.own.metadata()
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_watch_goes_on_with_the_certificate_that_the_file_has_by_then(client: Clients, files: Files) -> None:
    files.client("alice")
    replaced = until_expired(lambda: files.client("bob"))
    with Informerd(files.server(clients=True), WatchObjects=[replaced, GOES_ON]) as server:
        client(server.address, files.with_certificate).watch(PODS, marked(b"3"))
        assert server.script.shown == [("", "alice"), ("", "bob")]
        assert [it.token for it in server.script.asked_of("WatchObjects")] == [b"", b"2"]


def test_without_a_certificate_nobody_comes_in_who_needs_one(client: Clients, files: Files) -> None:
    with Informerd(files.server(clients=True)) as server:
        with pytest.raises(CallError) as refused:
            client(server.address, Credentials(ca=files.folder / "ca.crt")).call("list", PODS, timeout=2.0)
        assert refused.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert server.script.shown == []


def test_a_server_of_another_authority_is_not_believed(client: Clients, files: Files) -> None:
    with Informerd(files.server()) as server:
        trustme.CA().cert_pem.write_to_path(files.folder / "ca.crt")
        with pytest.raises(CallError) as refused:
            client(server.address, files.own).call("list", PODS, timeout=2.0)
        assert refused.value.code is grpc.StatusCode.UNAVAILABLE
        assert server.script.shown == []


def test_in_plain_text_a_token_is_sent_to_this_machine(client: Clients, files: Files) -> None:
    here = Credentials(token_file=files.folder / "token")
    with Informerd(ListObjects=[Call([LISTED])]) as server:
        client(server.address, here).call("list", PODS)
        assert server.script.shown == [("Bearer first", "")]


def test_no_more_than_two_channels_are_open_however_often_certificates_are_replaced(files: Files) -> None:
    closed: list[int] = []
    count = iter(range(10))
    files.client("alice")
    server = "https://localhost:7443"
    line = channels.Line(None, server, files.with_certificate, lambda *_: next(count), closed.append)
    assert [line.channel(), line.channel()] == [0, 0]
    for name in ("bob", "carol"):
        files.client(name)
        line.channel()
    assert line.channel() == 2
    assert closed == [0]
    assert line.own() == [1, 2]
    (files.folder / "client.crt").unlink()
    with pytest.raises(CallError):
        line.channel()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_credentials_that_are_of_no_use_are_refused_at_once(kind: type[Client], files: Files) -> None:
    files.client("alice")
    secured, plain = "https://informerd.example.com:7443", "informerd.example.com:7443"
    token = Credentials(token_file=files.folder / "token")
    for address, credentials, why in [
        (secured, None, "needs the authority"),
        (secured, token, "needs the authority"),
        (secured, replace(files.with_certificate, key=None), "goes with its key"),
        (plain, files.own, "https:// addresses"),
        (plain, token, "in plain text"),
    ]:
        with pytest.raises(ValueError, match=why):
            kind(address, credentials=credentials)
    files.token(" \n")
    with pytest.raises(ValueError, match="no token"):
        kind("127.0.0.1:7443", credentials=token)
    for missing in (replace(token, token_file="none"), replace(files.own, ca="none", token_file=None)):
        with pytest.raises(FileNotFoundError):
            kind("127.0.0.1:7443" if missing.ca is None else secured, credentials=missing)
    with pytest.raises(ValueError, match="channel of your own"):
        kind(channel=object(), credentials=token)  # type: ignore[arg-type]
