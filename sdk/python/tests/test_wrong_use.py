"""What is wrong is said at once, and where it is wrong."""

from __future__ import annotations

import asyncio

import longhaul
import pytest
from books import IMPORT, MOVE, Request
from longhaul import Why, wishes
from longhaul.v1 import workers_pb2 as v1


@longhaul.worker(IMPORT)
async def handler(ctx, request):
    pass


@pytest.mark.parametrize(
    "target", ["", "http://", "ftp://127.0.0.1", "http://127.0.0.1:7151/path", "http://127.0.0.1:no"]
)
def test_a_target_that_is_no_server(target):
    with pytest.raises(ValueError):
        longhaul.Worker(target, handler)


@pytest.mark.parametrize(
    "options",
    [{"slots": 0}, {"slots": 100_000}, {"lease": 0.5}, {"lease": 3601}, {"name": ""}, {"name": "x" * 257}, {"grace": -1}],
)
def test_options_out_of_their_range(options):
    with pytest.raises(ValueError):
        longhaul.Worker("http://127.0.0.1:1", handler, **options)


def test_functions_that_are_not_marked_or_marked_twice():
    with pytest.raises(TypeError, match="not marked"):
        longhaul.Worker("http://127.0.0.1:1", print)
    with pytest.raises(TypeError, match="two functions"):
        longhaul.Worker("http://127.0.0.1:1", handler, longhaul.worker(IMPORT)(lambda ctx, request: None))
    with pytest.raises(TypeError, match="at least one"):
        longhaul.Worker("http://127.0.0.1:1")
    with pytest.raises(TypeError, match="full names"):
        longhaul.worker()
    with pytest.raises(TypeError, match="full names"):
        longhaul.worker("ImportBooks")
    with pytest.raises(TypeError, match="no message class"):
        longhaul.worker(IMPORT, request=dict)


def test_a_marked_function_can_still_be_called():
    @longhaul.worker(IMPORT, request=Request)
    @longhaul.worker(MOVE)
    def twice(ctx, request):
        return ctx + request

    assert twice(1, 2) == 3
    longhaul.Worker("http://127.0.0.1:1", twice)


def test_a_worker_runs_once(server):
    async def main():
        worker = longhaul.Worker(server.url, handler)
        worker.stop()
        await worker.run()
        with pytest.raises(RuntimeError):
            await worker.run()

    asyncio.run(main())


def test_a_server_that_refuses_for_good_ends_the_worker(work):
    beside = work(handler, lease=3600.0, queues=["x" * 5_000_000])
    beside.ended()
    assert isinstance(beside.error, longhaul.Refused)


@pytest.mark.parametrize(
    ("action", "reason", "why"),
    [
        (v1.DesiredState.CONTINUE, 0, None),
        (0, v1.DesiredState.CLIENT_CANCEL, None),
        (99, v1.DesiredState.CLIENT_CANCEL, None),
        (v1.DesiredState.CANCEL, v1.DesiredState.CLIENT_CANCEL, Why.CLIENT_CANCEL),
        (v1.DesiredState.CANCEL, v1.DesiredState.DEADLINE, Why.DEADLINE),
        (v1.DesiredState.CANCEL, v1.DesiredState.SUPERSEDED, Why.SUPERSEDED),
        (v1.DesiredState.CANCEL, 99, Why.UNKNOWN),
        (v1.DesiredState.CANCEL, v1.DesiredState.DELETED, Why.UNKNOWN),
        (v1.DesiredState.STOP, v1.DesiredState.LEASE_LOST, Why.LEASE_LOST),
        (v1.DesiredState.STOP, v1.DesiredState.DELETED, Why.DELETED),
        (v1.DesiredState.STOP, v1.DesiredState.DONE, Why.DONE),
        (v1.DesiredState.STOP, v1.DesiredState.CLIENT_CANCEL, Why.LEASE_LOST),
        (v1.DesiredState.STOP, 99, Why.LEASE_LOST),
    ],
)
def test_every_wish_of_the_server_has_a_meaning(action, reason, why):
    wish = wishes.read(v1.DesiredState(action=action, reason=reason))
    assert (wish and wish.why) is why


def test_moments_beyond_what_python_can_say_are_left_out():
    desired = v1.DesiredState(action=v1.DesiredState.CANCEL)
    desired.deadline.seconds = 2**62
    assert wishes.read(desired).deadline is None
