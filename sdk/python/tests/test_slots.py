"""How many operations a worker runs at once."""

from __future__ import annotations

import threading

import longhaul
from books import IMPORT, Response
from conftest import LEASE


def test_no_more_run_at_once_than_there_are_slots(client, events, work):
    go_on = threading.Semaphore(0)
    lock = threading.Lock()
    running: list[int] = []
    most: list[int] = []

    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        with lock:
            running.append(1)
            most.append(len(running))
        events.say("started")
        go_on.acquire()
        with lock:
            running.pop()
        return Response(books=1)

    names = [client.start() for _ in range(7)]
    work(handler, slots=2)
    for _ in names:
        events.next()
        if len(most) > 1:
            go_on.release()
    go_on.release()
    assert all(client.done(name)["response"]["books"] == 1 for name in names)
    assert max(most) == 2


def test_code_that_runs_on_without_a_lease_keeps_its_slot(client, events, proxy, work):
    go_on = threading.Event()

    @longhaul.worker(IMPORT)
    def handler(ctx, request):
        events.say((ctx.operation, ctx.attempt))
        if ctx.attempt == 1 and ctx.operation == stuck:
            go_on.wait()
            events.say("returned")
        return Response(books=ctx.attempt)

    stuck = client.start()
    work(handler, slots=1, url=proxy.url, lease=LEASE)
    assert events.next() == (stuck, 1)
    proxy.cut()
    lost = threading.Event()
    while not lost.wait(0.01):
        # The server gives the operation up once its lease is over; another attempt waits for the slot.
        if client.call("GET", "/library/v1/operations") and take_over(client, stuck):
            lost.set()
    proxy.heal()
    assert events.none_waits()
    go_on.set()
    assert events.next() == "returned"
    assert client.done(stuck)["response"]["books"] == 3


def take_over(client, name):
    """Claims the operation as a worker of another name would, and fails it at once."""
    claim = {"worker": "other", "methods": [IMPORT], "lease": "1s"}
    for one in client.call("POST", "/longhaul/v1/leases:claim", claim).get("assignments", []):
        assert one["operation"] == name
        failure = {"code": 14, "message": "not mine", "retryable": True}
        item = {"operation": name, "epoch": one["epoch"], "failure": failure}
        client.call("POST", "/longhaul/v1/leases:report", {"worker": "other", "items": [item]})
        return True
    return False


def test_a_thousand_operations_on_one_worker(client, work):
    @longhaul.worker(IMPORT)
    async def handler(ctx, request):
        ctx.progress(50)
        return Response(books=1)

    work(handler, slots=200)
    names = [client.start() for _ in range(1000)]
    assert all("response" in client.done(name) for name in names)
