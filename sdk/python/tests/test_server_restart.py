"""The server is killed and comes back on the same folder."""

from __future__ import annotations

import asyncio
import threading

import longhaul
from books import IMPORT, Response
from longhaul import Why


def test_work_goes_on_and_a_cancel_is_heard_after_the_restart(server, client, events, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say((ctx.epoch, ctx.attempt))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.say(ctx.cancel_reason.why)
            raise

    work(handler)
    name = client.start()
    assert events.next() == (1, 1)
    server.kill()
    server.start()
    client.cancel(name)
    assert events.next() is Why.CLIENT_CANCEL
    assert client.done(name)["error"]["code"] == 1
    assert events.none_waits()


def test_what_was_said_while_it_was_away_is_kept_once_it_is_back(server, client, events, work):
    go_on = threading.Event()

    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say(ctx.epoch)
        await asyncio.get_running_loop().run_in_executor(None, go_on.wait)
        await ctx.save_checkpoint(b"half")
        await ctx.gate()
        return Response(books=7)

    work(handler)
    name = client.start()
    assert events.next() == 1
    server.kill()
    go_on.set()
    server.start()
    assert client.done(name)["response"]["books"] == 7
    assert events.none_waits()


def test_new_work_comes_after_the_restart(server, client, events, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        return Response(books=ctx.epoch)

    work(handler)
    assert client.done(client.start())["response"]["books"] == 1
    server.kill()
    server.start()
    assert client.done(client.start())["response"]["books"] == 1


def test_a_server_that_ends_in_order_is_waited_for(server, client, events, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.say(ctx.cancel_reason.why)
            raise

    work(handler)
    name = client.start()
    assert events.next() == "started"
    server.stop()
    server.start()
    client.cancel(name)
    assert events.next() is Why.CLIENT_CANCEL
    assert client.done(name)["error"]["code"] == 1
