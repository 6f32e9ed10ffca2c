"""google-api-python-client, with the discovery documents it ships, on four of the APIs."""

import uuid

import httplib2
import pytest
from google.api_core.retry import Retry
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from conftest import URL


def locations(service):
    return service.projects().locations()


def regions(service):
    return service.projects().regions()


# The collection that has operations, the operations' parent, and a start.
SERVICES = {
    "clouddeploy": (
        locations,
        "projects/{}/locations/us-central1",
        lambda service, project, new_id: service.projects()
        .locations()
        .deliveryPipelines()
        .create(
            parent=f"projects/{project}/locations/us-central1",
            deliveryPipelineId=new_id,
            body={"description": "made by discovery"},
        ),
    ),
    "privateca": (
        locations,
        "projects/{}/locations/us-central1",
        lambda service, project, new_id: service.projects()
        .locations()
        .caPools()
        .create(
            parent=f"projects/{project}/locations/us-central1",
            caPoolId=new_id,
            body={"tier": "DEVOPS"},
        ),
    ),
    "storagebatchoperations": (
        locations,
        "projects/{}/locations/global",
        lambda service, project, new_id: service.projects()
        .locations()
        .jobs()
        .create(
            parent=f"projects/{project}/locations/global",
            jobId=new_id,
            body={
                "bucketList": {
                    "buckets": [{"bucket": "b", "prefixList": {"includedObjectPrefixes": ["a"]}}]
                },
                "putObjectHold": {"temporaryHold": "SET"},
            },
        ),
    ),
    "dataproc": (
        regions,
        "projects/{}/regions/us-central1",
        lambda service, project, new_id: service.projects()
        .regions()
        .clusters()
        .create(
            projectId=project,
            region="us-central1",
            body={"projectId": project, "clusterName": new_id, "config": {}},
        ),
    ),
}


@pytest.fixture(params=SERVICES)
def api(request):
    return request.param


@pytest.fixture
def service(api):
    return build(
        api,
        "v1",
        http=httplib2.Http(timeout=20),
        static_discovery=True,
        client_options={"api_endpoint": f"{URL}/{api}/"},
    )


def operations(api, service):
    return SERVICES[api][0](service).operations()


def start(api, service, project, new_id="web"):
    return SERVICES[api][2](service, project, new_id).execute()["name"]


def list_name(api, project):
    parent = SERVICES[api][1].format(project)
    return f"{parent}/operations" if api == "dataproc" else parent


@Retry(predicate=lambda error: isinstance(error, AssertionError), initial=0.1, maximum=0.5, timeout=60)
def ended(api, service, name):
    operation = operations(api, service).get(name=name).execute()
    assert operation.get("done")
    return operation


@pytest.mark.parametrize("with_body", [True, False], ids=["with {}", "without a body"])
def test_cancel_answers_an_empty_object(api, service, project, with_body):
    if with_body and api == "dataproc":
        pytest.skip("Dataproc's discovery document has no body for cancel")
    name = start(api, service, project)
    body = {"body": {}} if with_body else {}
    assert operations(api, service).cancel(name=name, **body).execute() == {}
    operation = ended(api, service, name)
    assert operation["error"]["code"] == 1
    assert "response" not in operation


def test_cancel_with_another_body_is_refused(api, service, project):
    if api == "dataproc":
        pytest.skip("Dataproc's discovery document has no body for cancel")
    name = start(api, service, project)
    with pytest.raises(HttpError) as raised:
        operations(api, service).cancel(name=name, body={"name": "zzz"}).execute()
    assert raised.value.status_code == 400
    assert operations(api, service).cancel(name=name, body={}).execute() == {}


def test_delete_answers_an_empty_object_and_get_then_404(api, service, project):
    name = start(api, service, project)
    assert operations(api, service).delete(name=name).execute() == {}
    with pytest.raises(HttpError) as raised:
        operations(api, service).get(name=name).execute()
    assert raised.value.status_code == 404
    assert raised.value.error_details[0]["reason"] == "OPERATION_NOT_FOUND"


def test_lists_go_on_page_by_page(api, service, project):
    started = [start(api, service, project, f"web-{n}") for n in range(3)]
    collection = operations(api, service)
    request = collection.list(name=list_name(api, project), pageSize=2)
    seen, pages = [], 0
    while request is not None:
        page = request.execute()
        pages += 1
        seen += [operation["name"] for operation in page.get("operations", [])]
        request = collection.list_next(request, page)
    assert sorted(seen) == sorted(started)
    assert pages >= 2


def test_a_long_get_is_sent_as_a_post_with_an_override(api, service, project):
    name = start(api, service, project)
    long_filter = " OR ".join(f'name = "{uuid.uuid4()}"' for _ in range(50)) + f' OR name = "{name}"'
    assert len(long_filter) > 2048
    listed = operations(api, service).list(name=list_name(api, project), filter=long_filter).execute()
    assert [operation["name"] for operation in listed["operations"]] == [name]
