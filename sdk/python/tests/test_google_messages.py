"""Messages of Google's own clients, and the example of the README."""

from __future__ import annotations

import pathlib
import re
import signal
import subprocess
import sys
import threading

import longhaul
import pytest

deploy = pytest.importorskip("google.cloud.deploy_v1")
METHOD = "google.cloud.deploy.v1.CloudDeploy.CreateDeliveryPipeline"
README = pathlib.Path(__file__).parent.parent / "README.md"


def start(client, pipeline):
    path = f"/clouddeploy/v1/projects/p/locations/l/deliveryPipelines?deliveryPipelineId={pipeline}"
    return client.call("POST", path, {"description": "from the attic"})["name"]


def done(client, name):
    from conftest import soon

    def look():
        operation = client.call("GET", f"/clouddeploy/v1/{name}")
        return operation if operation.get("done") else None

    return soon("end of the operation", look)


def test_request_response_and_metadata_may_be_theirs(client, work):
    @longhaul.worker(METHOD, request=deploy.CreateDeliveryPipelineRequest, response=deploy.DeliveryPipeline)
    async def create(ctx, request):
        ctx.metadata(deploy.OperationMetadata(status_message="packing"))
        return deploy.DeliveryPipeline(name=ctx.target, description=request.delivery_pipeline.description)

    work(create)
    operation = done(client, start(client, "demo"))
    assert operation["response"]["name"] == "projects/p/locations/l/deliveryPipelines/demo"
    assert operation["response"]["description"] == "from the attic"


def test_a_response_of_another_of_their_classes_is_refused(client, work):
    @longhaul.worker(METHOD)
    def create(ctx, request):
        return deploy.Target()

    work(create)
    error = done(client, start(client, "demo"))["error"]
    assert error["code"] == 13 and "google.cloud.deploy.v1.Target" in error["message"]


def test_the_example_of_the_readme_works(server, client, events, tmp_path):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    assert len(code.strip().splitlines()) <= 25
    example = tmp_path / "example.py"
    # It sleeps for real work's sake; one step is enough to see it run. A task that is cancelled before its first
    # step never runs, so the test waits for that.
    code = code.replace("http://127.0.0.1:7151", server.url).replace("sleep(1)", "sleep(60)")
    example.write_text(code.replace("    try:\n", "    try:\n        print('at work')\n", 1))
    worker = subprocess.Popen([sys.executable, "-u", str(example)], stdout=subprocess.PIPE, text=True)
    threading.Thread(target=lambda: [events.say(line) for line in worker.stdout], daemon=True).start()
    try:
        name = start(client, "demo")
        assert events.next() == "at work\n"
        client.call("POST", f"/longhaul/v1/{name}:cancel", {"reason": "wrong region"})
        assert events.next() == "stopping: client cancel: wrong region\n"
        assert done(client, name)["error"]["code"] == 1
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
