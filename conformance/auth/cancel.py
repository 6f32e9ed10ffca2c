"""Cancels with Google's Python client as somebody who may, and as everybody who must not.

Prints one case a line: its name, what came, what is wanted, divided by tabs.
"""

import os
import sys

import grpc
from google.api_core import exceptions
from google.auth import credentials
from google.cloud import deploy_v1
from google.oauth2 import service_account

TRANSPORT = sys.argv[1]
PORT = os.environ["AUTH_PORT"]
OPERATION = os.environ["AUTH_OPERATION"]
METHOD = "google.longrunning.Operations.CancelOperation"
PERMISSION = "clouddeploy.operations.cancel"
INVALID = f"401 ACCESS_TOKEN_TYPE_UNSUPPORTED googleapis.com {METHOD}"
DENIED = f"403 IAM_PERMISSION_DENIED clouddeploy.googleapis.com {PERMISSION}"


class Fixed(credentials.Credentials):
    """A token that is sent as it is, good or not."""

    def __init__(self, token):
        super().__init__()
        self.token = token

    def refresh(self, request):
        pass


class Nobody(Fixed):
    """No token at all, however often it is refused."""

    def before_request(self, request, method, url, headers):
        pass


def file(variable):
    return service_account.Credentials.from_service_account_file(os.environ[variable])


def client(who):
    endpoint = f"localhost:{PORT}"
    if TRANSPORT == "rest":
        endpoint = f"https://{endpoint}/clouddeploy"
    elif isinstance(who, Nobody):
        channel = grpc.secure_channel(endpoint, grpc.ssl_channel_credentials())
        transport = deploy_v1.CloudDeployClient.get_transport_class("grpc")
        return deploy_v1.CloudDeployClient(transport=transport(channel=channel))
    return deploy_v1.CloudDeployClient(
        credentials=who, transport=TRANSPORT, client_options={"api_endpoint": endpoint}
    )


def cancel(who, name=OPERATION):
    try:
        client(who).cancel_operation({"name": name}, timeout=20)
    except exceptions.GoogleAPICallError as error:
        about = error.metadata or {}
        what = about.get("permission") or about.get("method")
        return f"{int(error.code)} {error.reason} {error.domain} {what}"
    return "cancelled"


def case(name, got, wanted):
    print(f"{name}\t{got}\t{wanted}", flush=True)


def token(name):
    return Fixed(os.environ[f"AUTH_{name}"])


missing = f"401 CREDENTIALS_MISSING googleapis.com {METHOD}"
case("no token", cancel(Nobody(None)), missing)
expired = f"401 ACCESS_TOKEN_EXPIRED googleapis.com {METHOD}"
case("an expired token", cancel(token("EXPIRED")), expired)
case("a token for another audience", cancel(token("AUDIENCE")), INVALID)
case("alg none", cancel(token("NONE")), INVALID)
case("HMAC with the public key", cancel(token("HMAC")), INVALID)
scope = f"403 ACCESS_TOKEN_SCOPE_INSUFFICIENT googleapis.com {METHOD}"
case("a token without the scope", cancel(token("SCOPE")), scope)
case("an identity without the permission", cancel(file("AUTH_VIEWER")), DENIED)
foreign = cancel(file("AUTH_FILE"), os.environ["AUTH_FOREIGN"])
case("an operation of another project", foreign, DENIED)
case("a permitted cancel with a service-account file", cancel(file("AUTH_FILE")), "cancelled")
