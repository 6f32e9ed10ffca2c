"""A worker that a test can kill or freeze. Usage: worker_process.py URL KIND. Its lines are its events."""

import asyncio
import sys
import threading

import longhaul
from books import IMPORT, MOVE, Response

LEASE = 1.5


def say(*words: object) -> None:
    print(*words, flush=True)


async def until_told(ctx: longhaul.Context) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("told", ctx.cancel_reason.why.name)
        raise


@longhaul.worker(IMPORT)
async def save_and_wait(ctx, request):
    await ctx.save_checkpoint(b"half")
    say("saved", ctx.operation)
    await until_told(ctx)


@longhaul.worker(MOVE)
async def note_and_wait(ctx, request):
    await ctx.save_external_ref("crane/7")
    say("noted", ctx.operation)
    await until_told(ctx)


@longhaul.worker(IMPORT)
async def finish(ctx, request):
    say("started", ctx.operation)
    return Response(books=1)


@longhaul.worker(IMPORT)
def never_looks(ctx, request):
    say("started", ctx.operation)
    threading.Event().wait()


longhaul.run(sys.argv[1], globals()[sys.argv[2]], lease=LEASE, grace=0.5)
