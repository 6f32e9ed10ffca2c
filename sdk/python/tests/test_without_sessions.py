"""Where sessions do not get through, claims and reports do the same."""

from __future__ import annotations

import asyncio
from concurrent import futures

import grpc
import longhaul
import pytest
from books import IMPORT, Response
from conftest import LEASE
from longhaul import Why

SERVICE = "/longhaul.v1.Workers/"


class NoSessions(grpc.GenericRpcHandler):
    """Passes claims and reports on to the server, and knows no other call."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.lost = 0

    def service(self, details):
        if details.method not in (SERVICE + "Claim", SERVICE + "Report"):
            return None
        call = self._channel.unary_unary(details.method)

        def forward(request, context):
            passed_on = call.future(request, timeout=context.time_remaining())
            context.add_callback(passed_on.cancel)
            try:
                answer = passed_on.result()
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            if self.lost and details.method.endswith("Claim"):
                self.lost -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost on the way")
            return answer

        return grpc.unary_unary_rpc_method_handler(forward)


@pytest.fixture
def old(server):
    """A server without sessions."""
    channel = grpc.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.enable_http_proxy", 0)])
    handler = NoSessions(channel)
    front = grpc.server(futures.ThreadPoolExecutor(32), handlers=[handler])
    handler.url = f"http://127.0.0.1:{front.add_insecure_port('127.0.0.1:0')}"
    front.start()
    yield handler
    front.stop(None).wait()
    channel.close()


def waiting(events):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say(ctx.operation)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.say(ctx.cancel_reason.why)
            raise

    return handler


@longhaul.worker(IMPORT)
async def finish(ctx, request):
    return Response(books=ctx.attempt)


def test_work_is_done(client, work, old):
    work(finish, url=old.url)
    for _ in range(20):
        assert client.done(client.start())["response"]["books"] == 1


def test_a_cancel_is_heard(client, events, work, old):
    work(waiting(events), url=old.url)
    names = [client.start() for _ in range(3)]
    assert sorted(events.next() for _ in names) == sorted(names)
    for name in names:
        client.cancel(name)
        assert events.next() is Why.CLIENT_CANCEL
        assert client.done(name)["error"]["code"] == 1


def test_leases_are_renewed(client, events, work, old):
    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        ctx.sleep(LEASE * 2)
        return Response(books=ctx.attempt)

    work(handler, url=old.url, lease=LEASE)
    assert client.done(client.start())["response"]["books"] == 1


def test_work_is_given_back_at_the_end(client, events, work, old):
    first = work(waiting(events), url=old.url)
    name = client.start()
    assert events.next() == name
    first.stop()
    assert first.error is None
    assert events.next() is Why.WORKER_SHUTDOWN
    work(finish)
    assert client.done(name)["response"]["books"] == 1


def test_a_claim_whose_answer_was_lost_is_no_work_lost(client, work, old):
    old.lost = 1
    work(finish, url=old.url)
    assert client.done(client.start())["response"]["books"] == 1
