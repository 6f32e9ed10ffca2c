"""An irreversible step is allowed, or the operation is cancelled; never both."""

from __future__ import annotations

import asyncio
import threading

import longhaul
from books import IMPORT, Request, Response
from longhaul import Effects, Why


def test_past_the_gate_a_cancel_does_not_interrupt(client, events, work):
    cancelled = threading.Event()

    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        await ctx.gate()
        events.say("passed")
        while not ctx.cancelled.is_set():
            await asyncio.sleep(0.001)
        events.say(ctx.cancel_reason.why)
        await ctx.save_checkpoint(b"stepped")
        return Response(books=1)

    work(handler)
    name = client.start()
    assert events.next() == "passed"
    client.cancel(name)
    cancelled.set()
    assert events.next() is Why.CLIENT_CANCEL
    assert client.done(name)["response"]["books"] == 1


def test_past_the_gate_a_plain_function_sleeps_on(client, events, work):
    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        ctx.gate()
        events.say("passed")
        ctx.cancelled.wait()
        ctx.check()
        ctx.sleep(0.01)
        return Response(books=1)

    work(handler)
    name = client.start()
    assert events.next() == "passed"
    client.cancel(name)
    assert client.done(name)["response"]["books"] == 1


def test_after_a_cancel_the_gate_is_closed(client, events, work):
    committed = threading.Event()

    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say("started")
        # Blocks the loop, so that the interruption cannot come before the gate.
        committed.wait()
        try:
            await ctx.gate()
            events.say("passed")
        except asyncio.CancelledError:
            events.say("closed")
            # Interrupted once: what follows is not disturbed.
            await asyncio.sleep(0)
            await ctx.save_checkpoint(b"tidy")
            try:
                await ctx.gate()
            except asyncio.CancelledError:
                events.say("still closed")
            raise longhaul.Stopped(Effects.NONE) from None

    work(handler)
    name = client.start()
    assert events.next() == "started"
    client.cancel(name)
    committed.set()
    assert events.next() == "closed"
    assert events.next() == "still closed"
    assert client.done(name)["error"]["code"] == 1


def test_after_a_cancel_the_gate_is_closed_to_a_plain_function(client, events, work):
    committed = threading.Event()

    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        events.say("started")
        committed.wait()
        ctx.gate()
        events.say("passed")

    work(handler)
    name = client.start()
    assert events.next() == "started"
    client.cancel(name)
    committed.set()
    assert client.done(name)["error"]["code"] == 1
    assert events.none_waits()


def test_a_child_task_may_ask_at_the_gate(client, events, work):
    committed = threading.Event()

    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        events.say("started")
        committed.wait()
        child = asyncio.ensure_future(ctx.gate())
        try:
            await asyncio.wait({child})
        finally:
            events.say("interrupted")
        await asyncio.Event().wait()

    work(handler)
    name = client.start()
    assert events.next() == "started"
    client.cancel(name)
    committed.set()
    assert events.next() == "interrupted"
    assert client.done(name)["error"]["code"] == 1


def test_gate_and_cancel_at_the_same_time_never_both(client, events, work):
    @longhaul.worker(IMPORT, request=Request)
    async def handler(ctx, request):
        events.say(ctx.operation)
        await ctx.gate()
        # The irreversible step.
        passed.add(ctx.operation)
        return Response(books=1)

    passed: set[str] = set()
    work(handler)
    ends = {"passed": 0, "cancelled": 0}
    for _ in range(60):
        name = client.start()
        assert events.next() == name
        client.cancel(name)
        operation = client.done(name)
        if name in passed:
            assert "response" in operation, operation
            ends["passed"] += 1
        else:
            assert operation["error"]["code"] == 1, operation
            ends["cancelled"] += 1
    print(ends)
