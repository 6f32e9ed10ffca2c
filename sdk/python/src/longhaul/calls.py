"""The way to the server: a channel, and the three calls of ``longhaul.v1.Workers``."""

from __future__ import annotations

import random
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any, Optional

import grpc

from .v1 import workers_pb2 as v1

Metadata = Sequence[tuple[str, str]]

_PERMANENT = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
)


class Calls:
    """The calls, over one channel.

    Each waits for the connection: some versions of grpcio connect only while a call is waiting.
    """

    def __init__(self, channel: grpc.Channel, metadata: Metadata) -> None:
        self._metadata = tuple(metadata)
        service = v1.DESCRIPTOR.services_by_name["Workers"].full_name
        self._claim = channel.unary_unary(
            f"/{service}/Claim",
            request_serializer=v1.ClaimRequest.SerializeToString,
            response_deserializer=v1.ClaimResponse.FromString,
        )
        self._report = channel.unary_unary(
            f"/{service}/Report",
            request_serializer=v1.ReportRequest.SerializeToString,
            response_deserializer=v1.ReportResponse.FromString,
        )
        self._session = channel.stream_stream(
            f"/{service}/Session",
            request_serializer=v1.SessionRequest.SerializeToString,
            response_deserializer=v1.SessionResponse.FromString,
        )

    def claim(self, request: v1.ClaimRequest, timeout: float) -> Any:
        """A future of a ``ClaimResponse``."""
        return self._claim.future(request, timeout=timeout, metadata=self._metadata, wait_for_ready=True)

    def report(self, request: v1.ReportRequest, timeout: float) -> Any:
        """A future of a ``ReportResponse``."""
        return self._report.future(request, timeout=timeout, metadata=self._metadata, wait_for_ready=True)

    def session(self, requests: Iterator[v1.SessionRequest]) -> Any:
        """An iterator of ``SessionResponse``, which can be cancelled."""
        return self._session(requests, metadata=self._metadata, wait_for_ready=True)


def open_channel(
    target: str, lease: float, credentials: Optional[grpc.ChannelCredentials]
) -> grpc.Channel:
    """A channel to ``http://HOST:PORT``, ``https://HOST[:PORT]`` or ``HOST:PORT`` (as http).

    Fails with ``ValueError`` for anything else. Pings tell a dead connection well within a lease.
    """
    url = urllib.parse.urlsplit(target if "://" in target else f"http://{target}")
    if url.scheme not in ("http", "https") or not url.hostname or url.path not in ("", "/"):
        raise ValueError(f"{target!r} is no server; write it as in http://127.0.0.1:7151")
    secure = url.scheme == "https" or credentials is not None
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    address = f"{host}:{url.port or (443 if secure else 80)}"
    options: list[tuple[str, Any]] = [
        ("grpc.keepalive_time_ms", int(1000 * min(10.0, lease / 3))),
        ("grpc.keepalive_timeout_ms", int(1000 * min(5.0, lease / 3))),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # In spite of its name: how long one attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", int(1000 * min(5.0, max(1.0, lease / 3)))),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    if url.hostname in ("127.0.0.1", "::1", "localhost"):
        options.append(("grpc.enable_http_proxy", 0))
    if secure:
        credentials = credentials or grpc.ssl_channel_credentials()
        return grpc.secure_channel(address, credentials, options=options)
    return grpc.insecure_channel(address, options=options)


def permanent(error: grpc.RpcError) -> bool:
    """Whether a repeat would be answered alike."""
    return error.code() in _PERMANENT


class Backoff:
    """Pauses between repeats of a call that gets no answer; spread, so that many do not return at once."""

    def __init__(self) -> None:
        self._next = 0.05

    def pause(self) -> float:
        pause = self._next * random.uniform(0.5, 1.0)
        self._next = min(self._next * 2, 2.0)
        return pause

    def reset(self) -> None:
        self._next = 0.05
