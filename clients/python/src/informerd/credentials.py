"""How a client proves who it is, and knows whom it talks to."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import grpc

from informerd.errors import CallError

__all__ = ["Credentials"]


@dataclass(frozen=True)
class Credentials:
    """Files. They are read when they are used, the token for each call, certificates before each call that may begin a
    connection, so that it goes on with whatever replaces them."""

    #: The authorities that sign informerd's certificate (PEM). Needed for ``https://``.
    ca: Union[str, os.PathLike[str], None] = None
    #: The client's certificate (PEM); goes with its key.
    certificate: Union[str, os.PathLike[str], None] = None
    #: Its key (PEM).
    key: Union[str, os.PathLike[str], None] = None
    #: A Kubernetes token for the audience that informerd asks for. In plain text it is sent to this machine only.
    token_file: Union[str, os.PathLike[str], None] = None

    def check(self, secured: bool, host: str) -> None:
        """Whether they are of use for a server that is reached like this; raises ValueError, or OSError where a file is
        not there."""
        if secured and self.ca is None:
            raise ValueError("https:// needs the authority that signs informerd's certificate: Credentials(ca=...)")
        if not secured and not (self.ca is None and self.certificate is None and self.key is None):
            raise ValueError("certificates are for https:// addresses")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate goes with its key: give both")
        if self.token_file is None:
            return
        if not secured and not _is_this_machine(host):
            raise ValueError("a token is not sent to another machine in plain text: use https://")
        if not self._token():
            raise ValueError(f"there is no token in {self.token_file}")

    def certificates(self) -> tuple[bytes | None, ...]:
        """What the authorities', the key's and the certificate's files have now."""
        files = (self.ca, self.key, self.certificate)
        return tuple(None if file is None else Path(file).read_bytes() for file in files)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call is to bring along."""
        if self.token_file is None:
            return ()
        try:
            token = self._token()
        except (OSError, ValueError) as error:
            raise CallError(grpc.StatusCode.UNAVAILABLE, f"cannot read the token: {error}") from error
        if not token:
            # Perhaps it is being replaced.
            raise CallError(grpc.StatusCode.UNAVAILABLE, f"there is no token in {self.token_file}")
        return (("authorization", f"Bearer {token}"),)

    def _token(self) -> str:
        assert self.token_file is not None
        token = Path(self.token_file).read_bytes().strip()
        if not token.isascii() or len(token.split()) > 1:
            raise ValueError(f"what is in {self.token_file} is no token")
        return token.decode()


def _is_this_machine(host: str) -> bool:
    host = host.strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
