"""Cancels with Google's Python client as somebody who may, and as everybody who must not.

Prints one case a line, in JSON: what the client's user sees. The suite says what it should have been.
"""

import json
import os
import sys

import grpc
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.cloud import deploy_v1
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.oauth2 import credentials, service_account

TRANSPORT, URL, HOST = sys.argv[1], os.environ["AUTH_URL"], os.environ["AUTH_HOST"]
OURS, THEIRS = os.environ["AUTH_OPERATION"], os.environ["AUTH_FOREIGN"]


class Renewed(credentials.Credentials):
    """A token whose owner gets the very same again when it is refused."""

    def refresh(self, request):
        pass


class Nobody(Renewed):
    """No token at all, however often it is refused."""

    def __init__(self):
        super().__init__(None)

    def before_request(self, request, method, url, headers):
        pass


def token(name, kind=Renewed):
    return kind(os.environ[f"AUTH_{name}"])


def file(name):
    return service_account.Credentials.from_service_account_file(os.environ[f"AUTH_FILE_{name}"])


def client(who, host=HOST):
    if TRANSPORT == "rest":
        options = {"api_endpoint": URL}
        return deploy_v1.CloudDeployClient(
            credentials=who, transport="rest", client_options=options
        )
    if isinstance(who, Nobody):
        channel = grpc.secure_channel(HOST, grpc.ssl_channel_credentials())
        transport = deploy_v1.CloudDeployClient.get_transport_class("grpc")
        return deploy_v1.CloudDeployClient(transport=transport(channel=channel))
    options = {"api_endpoint": host}
    return deploy_v1.CloudDeployClient(credentials=who, client_options=options)


def shown(call):
    """What comes of a call, as its caller sees it."""
    try:
        call()
    except grpc.RpcError as error:
        error = exceptions.from_grpc_error(error)
        return {**of(error), "class": "RpcError"}
    except exceptions.GoogleAPICallError as error:
        return of(error)
    except auth_exceptions.GoogleAuthError as error:
        return {"class": type(error).__name__, "message": str(error.args[0])}
    return "done"


def of(error):
    return {
        "class": type(error).__name__,
        "code": int(error.code),
        "reason": error.reason,
        "domain": error.domain,
        "metadata": dict(error.metadata or {}),
        "message": error.message,
    }


def case(name, got, **more):
    print(json.dumps({"case": name, "shown": got, **more}), flush=True)


def cancel(who, name=OURS):
    return shown(lambda: client(who).cancel_operation({"name": name}, timeout=20))


def wait(who, name):
    """Waits: over gRPC there is a method for it, over REST the client's futures read again and again."""
    if TRANSPORT == "grpc":
        stub = operations_pb2_grpc.OperationsStub(client(who).transport.grpc_channel)
        stub.WaitOperation(operations_pb2.WaitOperationRequest(name=name), timeout=20)
    else:
        client(who).transport.operations_client.get_operation(name, timeout=20)


def alike(verb, call, there, absent):
    got = [shown(lambda: call(name)) for name in [there, absent]]
    case(f"hidden: {verb}", got[0], absent=got[1])


case("no token", cancel(Nobody()))
case("an expired token", cancel(token("EXPIRED")))
case("another audience", cancel(token("AUDIENCE")))
case("alg none", cancel(token("NONE")))
case("HMAC with the public key", cancel(token("HMAC")))
case("a token without the scope", cancel(token("SCOPE")))
case("without the permission", cancel(file("VIEWER")))
case("another project's operation", cancel(file("ADMIN"), THEIRS))

# A plain token cannot be renewed. Over REST the client tries to when it gets a 401, fails at that, and
# tells of it instead of what it was told; of a 403, and over gRPC of both, it tells.
plain = token("EXPIRED", credentials.Credentials)
print(json.dumps({"extra": "a plain token that has expired", "shown": cancel(plain)}), flush=True)
may = file("ADMIN")
calls = {
    "get": lambda name: client(may).get_operation({"name": name}, timeout=20),
    "wait": lambda name: wait(may, name),
    "cancel": lambda name: client(may).cancel_operation({"name": name}, timeout=20),
    "delete": lambda name: client(may).delete_operation({"name": name}, timeout=20),
}
for verb, call in calls.items():
    alike(verb, lambda name: call(name), THEIRS, os.environ["AUTH_FOREIGN_ABSENT"])
alike(
    "list",
    lambda name: client(may).list_operations({"name": name}, timeout=20),
    os.environ["AUTH_FOREIGN_PARENT"],
    os.environ["AUTH_ABSENT_PARENT"],
)
if TRANSPORT == "grpc":
    # At a port of all APIs nothing says which is meant; what is there is another API's.
    every = client(may, os.environ["AUTH_HOST_ANY"])
    names = [os.environ["AUTH_FOREIGN_ANY"], os.environ["AUTH_FOREIGN_ABSENT"]]
    for call in [every.get_operation, every.cancel_operation, every.delete_operation]:
        got = [shown(lambda: call({"name": name}, timeout=20)) for name in names]
        print(json.dumps({"extra": call.__name__, "shown": got[0], "absent": got[1]}), flush=True)
case("absent of one's own", cancel(may, os.environ["AUTH_ABSENT"]))

case("permitted, a token", cancel(token("GOOD", credentials.Credentials), os.environ["AUTH_BY_TOKEN"]))
case("permitted, an account's file", cancel(may, os.environ["AUTH_BY_FILE"]))

# A process that waits and cancels, as it does after an hour: its tokens are then for another audience, those of
# its starts among them.
late = client(file("ADMIN"))
operations = late.transport.operations_client


def cancel_and_start():
    operations.cancel_operation(os.environ["AUTH_BY_FUTURE"])
    late.create_delivery_pipeline(
        parent=OURS.split("/operations/")[0],
        delivery_pipeline_id=f"late-{TRANSPORT}",
        delivery_pipeline=deploy_v1.DeliveryPipeline(),
    )


print(json.dumps({"extra": "a future's cancel, and a start", "shown": shown(cancel_and_start)}))
