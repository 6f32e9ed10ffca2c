"""How work ends, and what the server makes of it."""

from __future__ import annotations

import asyncio

import grpc
import longhaul
import pytest
from books import IMPORT, MOVE, Metadata, Request, Response
from google.protobuf import any_pb2, empty_pb2
from longhaul import Effects, Why


def check(client, work, handler, verb="import"):
    """Runs one operation to its end."""
    beside = work(handler)
    operation = client.done(client.start(verb))
    beside.stop()
    return operation


def test_a_response_may_be_a_message_an_any_or_bytes(client, work):
    packed = any_pb2.Any()
    packed.Pack(Response(books=2))
    for value in (Response(books=2), packed, Response(books=2).SerializeToString()):

        @longhaul.worker(IMPORT)
        async def handler(ctx, request, value=value):
            assert request.type_url.endswith("/example.library.v1.ImportBooksRequest")
            return value

        assert check(client, work, handler)["response"]["books"] == 2


def test_a_response_of_another_type_is_refused_by_the_server(client, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        return Metadata(books_so_far=1)

    error = check(client, work, handler)["error"]
    assert error["code"] == 13
    assert "ImportBooksMetadata" in error["message"] and "ImportBooksResponse" in error["message"]


@pytest.mark.parametrize("value", [None, 7, "text", {"books": 1}])
def test_what_is_no_message_is_no_response(client, work, value):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        return value

    error = check(client, work, handler)["error"]
    assert error["code"] == 13 and "example.library.v1.ImportBooksResponse" in error["message"]


def test_a_response_of_another_class_than_promised_is_not_sent(client, work):
    @longhaul.worker(IMPORT, response=Response)
    def handler(ctx, request):
        return empty_pb2.Empty()

    assert "not a ImportBooksResponse" in check(client, work, handler)["error"]["message"]


def test_a_response_too_large_to_send_fails_the_operation_and_nothing_else(client, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        with pytest.raises(longhaul.Refused):
            await ctx.save_checkpoint(bytes(2 << 20))
        with pytest.raises(longhaul.Refused):
            await ctx.save_checkpoint(bytes(8 << 20))
        with pytest.raises(longhaul.Refused) as refused:
            await ctx.save_external_ref("x" * 1025)
        assert refused.value.code == 3
        return bytes(8 << 20)

    error = check(client, work, handler)["error"]
    assert error["code"] == 13 and "8388" in error["message"]


def test_a_request_is_read_into_its_class(client, work):
    @longhaul.worker(IMPORT, request=Metadata)
    async def handler(ctx, request):
        return Response()

    error = check(client, work, handler)["error"]
    assert error["code"] == 13 and "is a example.library.v1.ImportBooksRequest" in error["message"]


def test_a_failure_is_reported_as_it_is(client, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        code = grpc.StatusCode.FAILED_PRECONDITION
        raise longhaul.Failed(code, "no shelf", details=[Request(source="attic")])

    error = check(client, work, handler)["error"]
    assert (error["code"], error["message"]) == (9, "no shelf")
    assert error["details"][0]["source"] == "attic"


def test_a_retryable_failure_is_tried_again(client, work):
    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        if ctx.attempt < 3:
            raise longhaul.Failed(14, "not yet", retryable=True)
        return Response(books=ctx.attempt)

    assert check(client, work, handler)["response"]["books"] == 3


def test_an_exception_is_tried_again_and_not_shown_to_clients(client, work):
    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        raise KeyError("a secret")

    error = check(client, work, handler)["error"]
    assert error["code"] == 13 and "KeyError" in error["message"] and "secret" not in error["message"]


@pytest.mark.parametrize("strange", [StopIteration, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_whatever_a_plain_function_raises_is_a_failure(client, work, strange):
    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        raise strange

    assert check(client, work, handler)["error"]["code"] == 13


def test_stopping_without_being_asked_is_a_failure(client, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        raise longhaul.Stopped(Effects.NONE, "bored")

    assert check(client, work, handler)["error"]["code"] == 10


def test_work_given_back_counts_no_attempt(client, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        assert ctx.attempt == 1
        if not ctx.checkpoint:
            raise longhaul.Released(b"half")
        return Response(books=len(ctx.checkpoint))

    assert check(client, work, handler)["response"]["books"] == 4


def test_progress_and_metadata_are_shown(client, events, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        for impossible in ({"percent": 101}, {"percent": -1}, {"step": 2, "steps": 1}):
            with pytest.raises(ValueError):
                ctx.progress(**impossible)
        ctx.progress(50, message="half")
        ctx.metadata(Metadata(books_so_far=5))
        # What is said comes in order, so it is there once this is durable.
        await ctx.save_checkpoint(b"x")
        events.say("said")
        await asyncio.Event().wait()

    work(handler)
    name = client.start()
    assert events.next() == "said"
    assert client.get(name)["metadata"]["booksSoFar"] == 5
    client.cancel(name)
    assert client.done(name)["metadata"] == {
        "@type": "type.googleapis.com/example.library.v1.ImportBooksMetadata",
        "booksSoFar": 5,
        "requestedCancellation": True,
    }


def test_metadata_of_another_type_is_dropped_and_said_in_the_log(client, work, caplog):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        ctx.metadata(Response(books=1))
        return Response(books=1)

    assert check(client, work, handler)["response"]["books"] == 1
    assert "metadata of operations/" in caplog.text


def test_a_cleanup_gets_what_the_work_noted(client, events, work):
    def clean_up(ctx, request):
        assert ctx.cleanup
        events.say((ctx.external_ref, ctx.checkpoint, request.source))
        return Effects.PARTIAL

    @longhaul.worker(MOVE, request=Request, cleanup=clean_up)
    async def handler(ctx, request):
        await ctx.save_external_ref("crane/7")
        await ctx.save_checkpoint(b"half")
        assert (ctx.external_ref, ctx.checkpoint) == ("crane/7", b"half")
        events.say("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert ctx.cancel_reason.why is Why.CLIENT_CANCEL
            # Leaves tidying up to the cleanup, which any worker may run.
            raise longhaul.Released from None

    work(handler)
    name = client.start("move", "attic")
    assert events.next() == "started"
    client.cancel(name)
    assert events.next() == ("crane/7", b"half", "attic")
    assert client.done(name)["error"]["code"] == 1


def test_a_cleanup_that_nobody_wrote_ends_with_effects_unknown(client, events, work):
    @longhaul.worker(MOVE)
    async def handler(ctx, request):
        events.say("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise longhaul.Released from None

    work(handler)
    name = client.start("move")
    assert events.next() == "started"
    client.cancel(name)
    error = client.done(name)["error"]
    assert error["code"] == 1 and "no cleanup" in error["message"]
