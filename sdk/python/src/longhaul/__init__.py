"""Workers for Longhaul: do the work of long-running operations, and stop when somebody cancels.

Start with :func:`worker` and :func:`run`::

    @longhaul.worker("google.cloud.deploy.v1.CloudDeploy.CreateDeliveryPipeline")
    async def create(ctx, request):
        await ctx.gate()
        return DeliveryPipeline(name=ctx.target)

    longhaul.run("http://127.0.0.1:7151", create)
"""

from .context import Context, SyncContext
from .endings import Failed, Released, Stopped
from .errors import Cancelled, Error, Lost, Refused, StillRunning
from .handlers import worker
from .runner import Worker, run
from .wishes import Cancellation, Effects, Why

__all__ = [
    "Cancellation",
    "Cancelled",
    "Context",
    "Effects",
    "Error",
    "Failed",
    "Lost",
    "Refused",
    "Released",
    "StillRunning",
    "Stopped",
    "SyncContext",
    "Why",
    "Worker",
    "run",
    "worker",
]
__version__ = "0.1.0"
