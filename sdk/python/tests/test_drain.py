"""A worker that ends gives back what it holds, with its checkpoint, and no attempt is counted."""

from __future__ import annotations

import asyncio
import signal
import threading

import longhaul
import pytest
from books import IMPORT, Response
from longhaul import Effects, Why


@longhaul.worker(IMPORT)
async def finish(ctx, request):
    return Response(books=1000 * ctx.attempt + len(ctx.checkpoint))


def waiting(events, ending):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.say(ctx.cancel_reason.why)
            await ctx.save_checkpoint(b"half")
            raise ending() from None

    return handler


@pytest.mark.parametrize("ending", [asyncio.CancelledError, lambda: longhaul.Stopped(Effects.NONE)])
def test_peers_12_a_shutdown_gives_work_back_with_its_checkpoint(client, events, work, ending):
    first = work(waiting(events, ending))
    name = client.start()
    assert events.next() == "started"
    first.stop()
    assert first.error is None
    assert events.next() is Why.WORKER_SHUTDOWN
    work(finish)
    assert client.done(name)["response"]["books"] == 1004


def test_a_plain_function_gives_back_too(client, events, work):
    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        events.say("started")
        try:
            ctx.sleep(3600)
        except longhaul.Cancelled as cancelled:
            events.say(cancelled.reason.why)
            ctx.save_checkpoint(b"half")
            raise

    first = work(handler)
    name = client.start()
    assert events.next() == "started"
    first.stop()
    assert events.next() is Why.WORKER_SHUTDOWN
    work(finish)
    assert client.done(name)["response"]["books"] == 1004


def test_handlers_may_finish_while_the_worker_drains(client, events, work):
    go_on = threading.Event()

    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        events.say("started")
        go_on.wait()
        events.say(ctx.cancel_reason)
        return Response(books=5)

    first = work(handler, drain=30.0)
    name = client.start()
    assert events.next() == "started"
    first.worker.stop()
    other = client.start()
    go_on.set()
    assert events.next() is None
    first.ended()
    assert client.done(name)["response"]["books"] == 5
    # What came after the stop was not taken, or given back unworked.
    assert events.none_waits()
    work(finish)
    assert client.done(other)["response"]["books"] == 1000


def test_a_cancel_during_the_drain_goes_before_the_shutdown(client, events, work):
    told, committed = threading.Event(), threading.Event()

    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        events.say("started")
        ctx.cancelled.wait()
        told.set()
        committed.wait()
        while ctx.cancel_reason.why is Why.WORKER_SHUTDOWN:
            threading.Event().wait(0.001)
        ctx.check()

    first = work(handler, grace=30.0)
    name = client.start()
    assert events.next() == "started"
    first.worker.stop()
    assert told.wait(30)
    client.cancel(name)
    committed.set()
    first.ended()
    assert client.done(name)["error"]["code"] == 1


def test_peers_17_code_that_never_looks_is_reported_as_still_running(client, events, work):
    go_on = threading.Event()

    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        events.say("started")
        go_on.wait()

    first = work(handler, grace=0.1, lease=1.0)
    name = client.start()
    assert events.next() == "started"
    first.stop()
    go_on.set()
    assert isinstance(first.error, longhaul.StillRunning)
    assert first.error.operations == [name]
    assert not client.get(name).get("done")


def test_an_async_handler_that_swallows_the_first_interruption_gets_another(client, events, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say("started")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                events.say("interrupted")
                if swallowed:
                    raise
                swallowed.append(1)

    swallowed: list[int] = []
    first = work(handler, grace=0.1)
    name = client.start()
    assert events.next() == "started"
    first.stop()
    assert [events.next(), events.next()] == ["interrupted"] * 2
    assert first.error is None
    work(finish)
    assert client.done(name)["response"]["books"] == 1000


def test_a_signal_drains_a_worker_process(client, process, work):
    first = process("save_and_wait")
    name = client.start()
    assert first.next() == f"saved {name}"
    first.signal(signal.SIGTERM)
    assert first.next() == "told WORKER_SHUTDOWN"
    assert first.next() == ""
    assert first.process.wait(30) == 0
    work(finish)
    assert client.done(name)["response"]["books"] == 1004


def test_a_worker_process_ends_although_its_code_does_not(client, process):
    first = process("never_looks")
    name = client.start()
    assert first.next() == f"started {name}"
    first.signal(signal.SIGTERM)
    assert first.next() == ""
    assert first.process.wait(30) == 1


def test_a_worker_may_be_stopped_before_it_runs(work):
    beside = work(finish)
    beside.stop()
    assert beside.error is None


def test_cancelling_the_run_drains_too(server, client, events, work):
    async def main():
        running = asyncio.ensure_future(longhaul.Worker(server.url, handler).run())
        await asyncio.get_running_loop().run_in_executor(None, events.next)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    handler = waiting(events, asyncio.CancelledError)
    name = client.start()
    asyncio.run(main())
    assert events.next() is Why.WORKER_SHUTDOWN
    work(finish)
    assert client.done(name)["response"]["books"] == 1004


def test_a_worker_ends_soon_though_its_server_is_gone(server, client, events, work):
    first = work(waiting(events, asyncio.CancelledError), grace=0.1, lease=3.0)
    client.start()
    assert events.next() == "started"
    server.kill()
    first.stop()
    # The handler stopped; only its lease could not be given back.
    assert events.next() is Why.WORKER_SHUTDOWN
    assert first.error is None
    server.start()
