"""A cancel reaches the code, with its reason, once."""

from __future__ import annotations

import asyncio
import threading
import time

import longhaul
from books import COUNT, IMPORT, Metadata, Request, Response
from conftest import LEASE
from longhaul import Effects, Why


async def forever() -> None:
    await asyncio.Event().wait()


def test_it_interrupts_an_async_handler(client, events, work):
    @longhaul.worker(IMPORT, request=Request)
    async def handler(ctx, request):
        assert ctx.cancel_reason is None and not ctx.cancelled.is_set()
        events.say(request.source)
        try:
            await forever()
        except asyncio.CancelledError as interruption:
            events.say((str(interruption), ctx.cancel_reason, ctx.cancelled.is_set()))
            raise

    work(handler)
    name = client.start(source="attic")
    assert events.next() == "attic"
    client.cancel(name)
    text, reason, flag = events.next()
    assert (text, reason.why, flag) == ("client cancel", Why.CLIENT_CANCEL, True)
    assert reason.deadline > reason.request_time
    operation = client.done(name)
    assert operation["error"]["code"] == 1
    assert operation["metadata"]["requestedCancellation"] is True


def test_it_raises_a_flag_for_a_plain_function(client, events, work):
    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        events.say("started")
        ctx.cancelled.wait()
        events.say(ctx.cancel_reason.why)
        ctx.check()

    work(handler)
    name = client.start()
    assert events.next() == "started"
    client.cancel(name)
    assert events.next() is Why.CLIENT_CANCEL
    assert client.done(name)["error"]["code"] == 1


def test_it_wakes_a_sleeping_plain_function(client, events, work):
    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        events.say("started")
        try:
            ctx.sleep(3600)
        except Exception:
            events.say("a cancellation is no ordinary exception")
        except longhaul.Cancelled as cancelled:
            events.say(cancelled.reason.why)
            raise longhaul.Stopped(Effects.NONE) from None

    work(handler)
    name = client.start()
    assert events.next() == "started"
    client.cancel(name)
    assert events.next() is Why.CLIENT_CANCEL
    assert client.done(name)["error"]["code"] == 1


def test_a_stopped_handler_says_what_it_leaves_and_what_it_achieved(client, events, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say("started")
        try:
            await forever()
        except asyncio.CancelledError:
            raise longhaul.Stopped(
                Effects.PARTIAL, "7 books stay", metadata=Metadata(books_so_far=7)
            ) from None

    work(handler)
    name = client.start()
    assert events.next() == "started"
    client.cancel(name)
    operation = client.done(name)
    assert operation["error"] == {"code": 1, "message": "7 books stay"}
    assert operation["metadata"]["booksSoFar"] == 7


def test_a_handler_may_finish_in_spite_of_it(client, events, work):
    @longhaul.worker(IMPORT, response=Response)
    async def handler(ctx, request):
        events.say("started")
        try:
            await forever()
        except asyncio.CancelledError:
            return Response(books=9)

    work(handler)
    name = client.start()
    assert events.next() == "started"
    client.cancel(name)
    operation = client.done(name)
    assert operation["response"]["books"] == 9
    assert operation["metadata"]["requestedCancellation"] is True


def test_it_comes_once_however_often_clients_ask(client, events, work):
    go_on = threading.Event()

    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say("started")
        try:
            await forever()
        except asyncio.CancelledError:
            events.say("interrupted")
            # What must still be done, undisturbed.
            await asyncio.get_running_loop().run_in_executor(None, go_on.wait)
            await ctx.save_checkpoint(b"tidy")
            raise longhaul.Stopped(Effects.UNDONE) from None

    work(handler)
    name = client.start()
    assert events.next() == "started"
    client.cancel(name)
    assert events.next() == "interrupted"
    client.cancel(name)
    client.cancel(name)
    go_on.set()
    assert client.done(name)["error"]["code"] == 1
    assert events.none_waits()


def test_peers_13_it_reaches_only_the_operation_it_is_for(client, events, work):
    @longhaul.worker(IMPORT, request=Request)
    async def handler(ctx, request):
        events.say(("started", request.source))
        try:
            await forever()
        except asyncio.CancelledError:
            events.say(("interrupted", request.source, ctx.cancel_reason.why))
            raise

    worker = work(handler)
    names = {source: client.start(source=source) for source in "abc"}
    assert {events.next() for _ in names} == {("started", source) for source in names}
    client.cancel(names["b"])
    assert events.next() == ("interrupted", "b", Why.CLIENT_CANCEL)
    assert client.done(names["b"])["error"]["code"] == 1
    assert events.none_waits()
    worker.stop()
    assert {events.next() for _ in "ac"} == {("interrupted", source, Why.WORKER_SHUTDOWN) for source in "ac"}
    assert not any(client.get(names[source]).get("done") for source in "ac")


def test_a_missed_deadline_has_its_own_reason_and_code(client, events, work):
    @longhaul.worker(COUNT)
    async def handler(ctx, request):
        assert ctx.deadline is not None
        try:
            await forever()
        except asyncio.CancelledError:
            events.say(ctx.cancel_reason.why)
            raise

    work(handler)
    name = client.start("count")
    assert events.next() is Why.DEADLINE
    assert client.done(name)["error"]["code"] == 4


def test_a_blocked_event_loop_does_not_cost_the_lease(client, events, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        time.sleep(LEASE * 1.5)
        return Response(books=ctx.attempt)

    work(handler, lease=LEASE)
    assert client.done(client.start())["response"]["books"] == 1


def test_a_handler_that_cancels_itself_has_failed(client, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        if ctx.attempt == 1:
            raise asyncio.CancelledError
        return Response(books=ctx.attempt)

    work(handler)
    assert client.done(client.start())["response"]["books"] == 2


def test_a_child_task_of_a_handler_is_interrupted_with_it(client, events, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        async def child():
            try:
                events.say("started")
                await forever()
            finally:
                events.say("child ended")

        await asyncio.gather(child(), child())

    work(handler)
    name = client.start()
    assert [events.next(), events.next()] == ["started"] * 2
    client.cancel(name)
    assert [events.next(), events.next()] == ["child ended"] * 2
    assert client.done(name)["error"]["code"] == 1


def test_a_cancel_with_actor_and_text_reaches_the_code(client, events, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say("started")
        try:
            await forever()
        except asyncio.CancelledError:
            events.say(ctx.cancel_reason)
            raise

    work(handler)
    name = client.start()
    assert events.next() == "started"
    client.call("POST", f"/longhaul/v1/{name}:cancel", {"reason": "wrong shelf"})
    reason = events.next()
    assert (reason.why, reason.message) == (Why.CLIENT_CANCEL, "wrong shelf")
    assert "wrong shelf" in str(reason)
