"""One table: how each API is spoken to, and which operation the tests start on it."""

from dataclasses import dataclass
from typing import Any, Callable

import grpc
from google.auth.credentials import AnonymousCredentials
from google.cloud import dataproc_v1, deploy_v1, storagebatchoperations_v1
from google.cloud.security import privateca_v1

from conftest import PORT, URL


@dataclass(frozen=True)
class Api:
    name: str  # the URL prefix, and the first label of the host
    client: type
    start: Callable[[Any, str, str], Any]  # client, project, new id -> future
    response: type
    made: Callable[[Any, str], bool]  # response, id -> whether it was built from the request
    parent: str  # the operation's parent, with {project}
    list_name: str  # what a list of operations is asked with
    metadata: type
    tells_cancellation: bool  # the metadata has requested_cancellation
    rest_future_cancels: bool  # google-api-core can send this API's cancel over REST

    def over(self, transport: str):
        """A client; REST says which API by URL prefix, gRPC by authority."""
        if transport == "rest":
            return self.client(
                transport="rest",
                credentials=AnonymousCredentials(),
                client_options={"api_endpoint": f"{URL}/{self.name}"},
            )
        authority = ("grpc.default_authority", f"{self.name}.googleapis.com")
        channel = grpc.insecure_channel(f"127.0.0.1:{PORT}", options=[authority])
        return self.client(transport=self.client.get_transport_class("grpc")(channel=channel))

    def list_of(self, project: str) -> str:
        return self.list_name.format(parent=self.parent.format(project=project))


def create_delivery_pipeline(client, project, new_id):
    return client.create_delivery_pipeline(
        parent=f"projects/{project}/locations/us-central1",
        delivery_pipeline_id=new_id,
        delivery_pipeline=deploy_v1.DeliveryPipeline(description=f"made for {new_id}"),
    )


def create_ca_pool(client, project, new_id):
    return client.create_ca_pool(
        parent=f"projects/{project}/locations/us-central1",
        ca_pool_id=new_id,
        ca_pool=privateca_v1.CaPool(tier=privateca_v1.CaPool.Tier.DEVOPS, labels={"made": new_id}),
    )


def create_job(client, project, new_id):
    buckets = storagebatchoperations_v1.BucketList(
        buckets=[
            storagebatchoperations_v1.BucketList.Bucket(
                bucket="b",
                prefix_list=storagebatchoperations_v1.PrefixList(included_object_prefixes=["a"]),
            )
        ]
    )
    job = storagebatchoperations_v1.Job(
        description=f"made for {new_id}",
        bucket_list=buckets,
        put_object_hold=storagebatchoperations_v1.PutObjectHold(
            temporary_hold=storagebatchoperations_v1.PutObjectHold.HoldStatus.SET
        ),
    )
    return client.create_job(
        parent=f"projects/{project}/locations/global", job_id=new_id, job=job
    )


def create_cluster(client, project, new_id):
    return client.create_cluster(
        project_id=project,
        region="us-central1",
        cluster=dataproc_v1.Cluster(project_id=project, cluster_name=new_id, config={}),
    )


APIS = [
    Api(
        name="clouddeploy",
        client=deploy_v1.CloudDeployClient,
        start=create_delivery_pipeline,
        response=deploy_v1.DeliveryPipeline,
        made=lambda made, new_id: made.description == f"made for {new_id}",
        parent="projects/{project}/locations/us-central1",
        list_name="{parent}",
        metadata=deploy_v1.OperationMetadata,
        tells_cancellation=True,
        rest_future_cancels=True,
    ),
    Api(
        name="privateca",
        client=privateca_v1.CertificateAuthorityServiceClient,
        start=create_ca_pool,
        response=privateca_v1.CaPool,
        made=lambda made, new_id: made.labels == {"made": new_id}
        and made.tier == privateca_v1.CaPool.Tier.DEVOPS,
        parent="projects/{project}/locations/us-central1",
        list_name="{parent}",
        metadata=privateca_v1.OperationMetadata,
        tells_cancellation=True,
        rest_future_cancels=True,
    ),
    Api(
        name="storagebatchoperations",
        client=storagebatchoperations_v1.StorageBatchOperationsClient,
        start=create_job,
        response=storagebatchoperations_v1.Job,
        made=lambda made, new_id: made.description == f"made for {new_id}",
        parent="projects/{project}/locations/global",
        list_name="{parent}",
        metadata=storagebatchoperations_v1.OperationMetadata,
        tells_cancellation=True,
        rest_future_cancels=True,
    ),
    Api(
        name="dataproc",
        client=dataproc_v1.ClusterControllerClient,
        start=create_cluster,
        response=dataproc_v1.Cluster,
        made=lambda made, new_id: made.cluster_name == new_id,
        parent="projects/{project}/regions/us-central1",
        list_name="{parent}/operations",
        metadata=dataproc_v1.ClusterOperationMetadata,
        tells_cancellation=False,
        rest_future_cancels=False,
    ),
]
