"""Start, poll, cancel, wait, list and delete with the official libraries, over REST and gRPC."""

import pytest
from google.api_core import exceptions
from google.api_core.retry import Retry
from google.longrunning import operations_pb2

from apis import APIS

# Polls oftener than the libraries' own second, only so that the suite is quick.
QUICK = Retry(
    predicate=lambda error: type(error).__name__ == "_OperationNotComplete",
    initial=0.1,
    maximum=0.5,
    timeout=60,
)


@pytest.fixture(params=APIS, ids=lambda api: api.name)
def api(request):
    return request.param


@pytest.fixture(params=["rest", "grpc"])
def transport(request):
    return request.param


@pytest.fixture
def client(api, transport):
    return api.over(transport)


def finish(future):
    return future.result(polling=QUICK)


def cancel(api, transport, client, future):
    """As a user of the library would; Dataproc's REST future cannot, see the test of its own."""
    if transport == "rest" and not api.rest_future_cancels:
        client.cancel_operation({"name": future.operation.name})
    else:
        assert future.cancel() is True


def names(client, **request):
    return [operation.name for operation in client.list_operations(request).operations]


def test_a_cancelled_operation_raises_cancelled_and_is_kept(api, transport, client, project):
    future = api.start(client, project, "web")
    name = future.operation.name
    assert name.startswith(api.parent.format(project=project) + "/operations/")
    assert not future.done()
    assert isinstance(future.metadata, api.metadata)

    cancel(api, transport, client, future)

    with pytest.raises(exceptions.Cancelled) as raised:
        finish(future)
    assert raised.value.errors[0].code == 1
    assert future.cancelled()
    assert future.done()
    if api.tells_cancellation:
        assert future.metadata.requested_cancellation
    kept = client.get_operation({"name": name})
    assert kept.done and kept.error.code == 1 and not kept.HasField("response")
    assert name in names(client, name=api.list_of(project))


def test_cancelling_again_and_after_the_end_succeeds(api, transport, client, project):
    future = api.start(client, project, "web")
    request = {"name": future.operation.name}
    client.cancel_operation(request)
    client.cancel_operation(request)
    with pytest.raises(exceptions.Cancelled):
        finish(future)
    before = client.get_operation(request)
    client.cancel_operation(request)
    assert client.get_operation(request) == before
    assert future.cancel() is False


def test_an_operation_left_alone_returns_the_typed_response(api, client, project):
    future = api.start(client, project, "web")
    response = finish(future)
    assert isinstance(response, api.response)
    assert api.made(response, "web")
    assert not future.cancelled()
    assert isinstance(future.metadata, api.metadata)


def test_lists_are_filtered_and_paged(api, client, project):
    started = [api.start(client, project, f"web-{n}").operation.name for n in range(3)]
    ended = started[0]
    client.cancel_operation({"name": ended})
    until_done(client, ended)
    parent = api.list_of(project)

    assert sorted(names(client, name=parent)) == sorted(started)
    assert names(client, name=parent, filter="done=true AND error.code=1") == [ended]

    seen, token = [], ""
    while True:
        request = operations_pb2.ListOperationsRequest(name=parent, page_size=1, page_token=token)
        page = client.list_operations(request)
        assert len(page.operations) <= 1
        seen += [operation.name for operation in page.operations]
        token = page.next_page_token
        if not token:
            break
    assert sorted(seen) == sorted(started), "every operation on exactly one page"

    pager = client.transport.operations_client.list_operations(parent, "")
    assert sorted(operation.name for operation in pager) == sorted(started)
    for name in started:
        client.cancel_operation({"name": name})


def test_a_bad_filter_is_invalid_argument(api, transport, client, project):
    with pytest.raises(exceptions.BadRequest if transport == "rest" else exceptions.InvalidArgument):
        names(client, name=api.list_of(project), filter="done = (")


def test_a_deleted_operation_is_not_found(api, client, project):
    request = {"name": api.start(client, project, "web").operation.name}
    client.delete_operation(request)
    with pytest.raises(exceptions.NotFound):
        client.get_operation(request)
    assert names(client, name=api.list_of(project)) == []


def test_what_never_existed_is_not_found(api, client, project):
    request = {"name": api.parent.format(project=project) + "/operations/absent"}
    for call in (client.get_operation, client.cancel_operation, client.delete_operation):
        with pytest.raises(exceptions.NotFound) as raised:
            call(request)
        assert raised.value.reason == "OPERATION_NOT_FOUND"


def test_a_start_without_its_required_field_is_refused(transport, project):
    deploy = next(api for api in APIS if api.name == "clouddeploy")
    expected = exceptions.BadRequest if transport == "rest" else exceptions.InvalidArgument
    with pytest.raises(expected):
        deploy.over(transport).create_delivery_pipeline(
            parent=f"projects/{project}/locations/us-central1"
        )


def test_a_method_that_starts_nothing_is_unimplemented(transport, project):
    deploy = next(api for api in APIS if api.name == "clouddeploy")
    name = f"projects/{project}/locations/us-central1/deliveryPipelines/web"
    with pytest.raises(exceptions.MethodNotImplemented):
        deploy.over(transport).get_delivery_pipeline(name=name)


def test_a_repeated_request_id_returns_the_first_operation(transport, project):
    deploy = next(api for api in APIS if api.name == "clouddeploy")
    request = {
        "parent": f"projects/{project}/locations/us-central1",
        "delivery_pipeline_id": "web",
        "delivery_pipeline": {"description": "once"},
        "request_id": "6f1c5d1e-7a43-4f0e-9b7a-0d8f1c2b3a45",
    }
    client = deploy.over(transport)
    first = client.create_delivery_pipeline(request).operation.name
    assert client.create_delivery_pipeline(request).operation.name == first


def test_dataproc_s_rest_future_cannot_send_its_cancel(project):
    """A defect of google-api-core 2.44.0: it looks for a body in a rule that has none.

    Nothing reaches the server. The day this fails, the way around it in `cancel` can go.
    """
    dataproc = next(api for api in APIS if api.name == "dataproc")
    client = dataproc.over("rest")
    future = dataproc.start(client, project, "web")
    with pytest.raises(KeyError, match="body"):
        future.cancel()
    assert not future.done()
    client.cancel_operation({"name": future.operation.name})


def until_done(client, name):
    waited = Retry(predicate=lambda error: isinstance(error, StillRunning), initial=0.1, maximum=0.5, timeout=60)

    @waited
    def poll():
        if not client.get_operation({"name": name}).done:
            raise StillRunning(name)

    poll()


class StillRunning(Exception):
    """Not done yet."""
