"""Who may work on an operation, and what happens to those who may not any more."""

from __future__ import annotations

import asyncio
import signal
import threading

import longhaul
from books import IMPORT, MOVE, Response
from conftest import LEASE
from longhaul import Why


@longhaul.worker(IMPORT)
async def finish(ctx, request):
    assert ctx.checkpoint in (b"", b"half")
    return Response(books=1000 * ctx.attempt + len(ctx.checkpoint))


def test_another_worker_goes_on_from_the_checkpoint_of_a_killed_one(client, process, work):
    first = process("save_and_wait")
    name = client.start()
    assert first.next() == f"saved {name}"
    first.kill()
    work(finish, lease=LEASE)
    assert client.done(name)["response"]["books"] == 2004


def test_a_killed_workers_leavings_are_cleaned_up_by_another(client, events, process, work):
    first = process("note_and_wait")
    name = client.start("move")
    assert first.next() == f"noted {name}"
    first.kill()

    def clean_up(ctx, request):
        events.say(ctx.external_ref)

    @longhaul.worker(MOVE, cleanup=clean_up)
    def move(ctx, request):
        raise AssertionError("a cancelled operation is not worked on again")

    client.cancel(name)
    work(move)
    assert events.next() == "crane/7"
    assert client.done(name)["error"]["code"] == 1


def test_without_renewal_a_handler_is_stopped_before_its_lease_ends(client, events, proxy, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say(ctx.attempt)
        if ctx.attempt == 2:
            return Response(books=2)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.say((ctx.cancel_reason.why, client.get(ctx.operation)["metadata"]))
            raise

    work(handler, url=proxy.url, lease=LEASE)
    name = client.start()
    assert events.next() == 1
    proxy.cut()
    assert events.next()[0] is Why.LEASE_LOST
    proxy.heal()
    assert events.next() == 2
    assert client.done(name)["response"]["books"] == 2


def test_without_renewal_a_plain_function_is_told(client, events, proxy, work):
    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        if ctx.attempt == 1:
            # Past the gate, too.
            ctx.gate()
        events.say(ctx.attempt)
        if ctx.attempt == 1:
            try:
                ctx.sleep(3600)
            except longhaul.Cancelled as cancelled:
                events.say(cancelled.reason.why)
                raise
        return Response(books=ctx.attempt)

    work(handler, url=proxy.url, lease=LEASE)
    name = client.start()
    assert events.next() == 1
    proxy.cut()
    assert events.next() is Why.LEASE_LOST
    proxy.heal()
    assert events.next() == 2
    assert client.done(name)["response"]["books"] == 2


def test_a_thawed_worker_hears_that_its_lease_is_lost(client, process, work):
    frozen = process("save_and_wait")
    name = client.start()
    assert frozen.next() == f"saved {name}"
    frozen.signal(signal.SIGSTOP)
    work(finish, lease=LEASE)
    assert client.done(name)["response"]["books"] >= 2004
    frozen.signal(signal.SIGCONT)
    assert frozen.next().startswith("told ")


def test_an_interruption_of_the_line_shorter_than_the_lease_is_not_noticed(client, events, proxy, work):
    finish_now = threading.Event()

    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say("started")
        await asyncio.get_running_loop().run_in_executor(None, finish_now.wait)
        await ctx.save_checkpoint(b"said after the interruption")
        return Response(books=ctx.attempt)

    work(handler, url=proxy.url)
    name = client.start()
    assert events.next() == "started"
    proxy.cut()
    finish_now.set()
    proxy.heal()
    assert client.done(name)["response"]["books"] == 1


def test_a_cancel_while_the_line_is_down_is_heard_once_it_is_up(client, events, proxy, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.say(ctx.cancel_reason.why)
            raise

    work(handler, url=proxy.url)
    name = client.start()
    assert events.next() == "started"
    proxy.cut()
    client.cancel(name)
    assert events.none_waits()
    proxy.heal()
    assert events.next() is Why.CLIENT_CANCEL
    assert client.done(name)["error"]["code"] == 1


def test_a_result_found_while_the_line_is_down_is_delivered(client, events, proxy, work):
    finish_now = threading.Event()

    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        events.say("started")
        finish_now.wait()
        events.say("returning")
        return Response(books=ctx.attempt)

    work(handler, url=proxy.url)
    name = client.start()
    assert events.next() == "started"
    proxy.cut()
    finish_now.set()
    assert events.next() == "returning"
    proxy.heal()
    assert client.done(name)["response"]["books"] == 1
    assert events.none_waits()
