//! One operation-starting method of each bundled API, in both forms.

use prost::Message;
use serde_json::{Value, json};

/// A message of one type in both forms.
#[derive(Clone, Debug)]
pub struct Typed {
    /// Full name of its type.
    pub type_name: &'static str,
    /// Its JSON form, without `@type`.
    pub json: Value,
    /// Its binary form.
    pub bytes: Vec<u8>,
}

impl Typed {
    /// A message with nothing set.
    pub fn empty(type_name: &'static str) -> Self {
        Self { type_name, json: json!({}), bytes: Vec::new() }
    }

    /// A message whose field 1, called `name`, is set.
    pub fn named(type_name: &'static str, name: &str) -> Self {
        let bytes = Named { name: name.into() }.encode_to_vec();
        Self { type_name, json: json!({ "name": name }), bytes }
    }
}

/// What a start asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The id of the new resource.
    pub id: &'a str,
    /// The idempotency key; empty for none.
    pub request_id: &'a str,
    /// Only check.
    pub validate_only: bool,
}

/// One method that starts an operation.
#[derive(Debug)]
pub struct Sample {
    /// The API's name and host.
    pub host: &'static str,
    /// The path segment that means the API.
    pub prefix: &'static str,
    /// Full name of the method.
    pub method: &'static str,
    /// Type of the metadata.
    pub metadata_type: &'static str,
    /// Type of the response.
    pub response_type: &'static str,
    /// Whether the metadata has `requested_cancellation`.
    pub tells_cancellation: bool,
    /// Segment of the place in names: `locations` or `regions`.
    pub places: &'static str,
    /// Collection of the new resource, as the path has it.
    collection: &'static str,
    /// JSON name of the id of the new resource; empty when it is inside the body.
    id_parameter: &'static str,
}

/// Cloud Deploy.
pub static DEPLOY: Sample = Sample {
    host: "clouddeploy.googleapis.com",
    prefix: "clouddeploy",
    method: "google.cloud.deploy.v1.CloudDeploy.CreateTarget",
    metadata_type: "google.cloud.deploy.v1.OperationMetadata",
    response_type: "google.cloud.deploy.v1.Target",
    tells_cancellation: true,
    places: "locations",
    collection: "targets",
    id_parameter: "targetId",
};

/// Certificate Authority Service.
pub static CAS: Sample = Sample {
    host: "privateca.googleapis.com",
    prefix: "privateca",
    method: "google.cloud.security.privateca.v1.CertificateAuthorityService.CreateCaPool",
    metadata_type: "google.cloud.security.privateca.v1.OperationMetadata",
    response_type: "google.cloud.security.privateca.v1.CaPool",
    tells_cancellation: true,
    places: "locations",
    collection: "caPools",
    id_parameter: "caPoolId",
};

/// Storage Batch Operations.
pub static BATCH: Sample = Sample {
    host: "storagebatchoperations.googleapis.com",
    prefix: "storagebatchoperations",
    method: "google.cloud.storagebatchoperations.v1.StorageBatchOperations.CreateJob",
    metadata_type: "google.cloud.storagebatchoperations.v1.OperationMetadata",
    response_type: "google.cloud.storagebatchoperations.v1.Job",
    tells_cancellation: true,
    places: "locations",
    collection: "jobs",
    id_parameter: "jobId",
};

/// Dataproc, whose metadata has no word for a request to cancel.
pub static DATAPROC: Sample = Sample {
    host: "dataproc.googleapis.com",
    prefix: "dataproc",
    method: "google.cloud.dataproc.v1.ClusterController.CreateCluster",
    metadata_type: "google.cloud.dataproc.v1.ClusterOperationMetadata",
    response_type: "google.cloud.dataproc.v1.Cluster",
    tells_cancellation: false,
    places: "regions",
    collection: "clusters",
    id_parameter: "",
};

/// Gemini for Google Cloud.
pub static GEMINI: Sample = Sample {
    host: "cloudaicompanion.googleapis.com",
    prefix: "cloudaicompanion",
    method: "google.cloud.cloudaicompanion.v1.CloudAiCompanion.CreateCodeRepositoryIndex",
    metadata_type: "google.cloud.cloudaicompanion.v1.OperationMetadata",
    response_type: "google.cloud.cloudaicompanion.v1.CodeRepositoryIndex",
    tells_cancellation: true,
    places: "locations",
    collection: "codeRepositoryIndexes",
    id_parameter: "codeRepositoryIndexId",
};

/// All five.
pub static ALL: [&Sample; 5] = [&DEPLOY, &CAS, &BATCH, &DATAPROC, &GEMINI];

impl Sample {
    /// What lists find the operations of `project` under.
    pub fn parent(&self, project: &str) -> String {
        format!("projects/{project}/{}/here", self.places)
    }

    /// Path of a list under `parent`.
    pub fn list_path(&self, parent: &str) -> String {
        format!("/v1/{parent}/operations")
    }

    /// `name` of a list under `parent`: some APIs name the collection as well.
    pub fn list_name(&self, parent: &str) -> String {
        if self.places == "regions" { format!("{parent}/operations") } else { parent.to_owned() }
    }

    /// Path and query of the start.
    pub fn start_path(&self, project: &str, asked: Asked<'_>) -> String {
        let mut query = Vec::new();
        if !self.id_parameter.is_empty() {
            query.push(format!("{}={}", self.id_parameter, asked.id));
        }
        if !asked.request_id.is_empty() {
            query.push(format!("requestId={}", asked.request_id));
        }
        if asked.validate_only {
            query.push("validateOnly=true".into());
        }
        format!("/v1/{}/{}?{}", self.parent(project), self.collection, query.join("&"))
    }

    /// Body of the start.
    pub fn start_body(&self, project: &str, asked: Asked<'_>) -> Value {
        if self.id_parameter.is_empty() {
            json!({ "projectId": project, "clusterName": asked.id })
        } else {
            json!({})
        }
    }

    /// The same in binary form.
    pub fn start_message(&self, project: &str, asked: Asked<'_>) -> Vec<u8> {
        if self.id_parameter.is_empty() {
            let cluster = Cluster { project_id: project.into(), cluster_name: asked.id.into() };
            let request = CreateClusterRequest {
                project_id: project.into(),
                cluster: Some(cluster),
                region: "here".into(),
                request_id: asked.request_id.into(),
            };
            return request.encode_to_vec();
        }
        let request = CreateRequest {
            parent: self.parent(project),
            id: asked.id.into(),
            resource: Some(Named::default()),
            request_id: asked.request_id.into(),
            validate_only: asked.validate_only,
        };
        request.encode_to_vec()
    }

    /// The gRPC path of the start.
    pub fn grpc_path(&self) -> String {
        let (service, method) = self.method.rsplit_once('.').unwrap();
        format!("/{service}/{method}")
    }

    /// A response of the declared type.
    pub fn response(&self) -> Typed {
        match self.id_parameter {
            "" => Typed::empty(self.response_type),
            _ => Typed::named(self.response_type, "made"),
        }
    }
}

/// The shape that four of the five requests share.
#[derive(Clone, PartialEq, prost::Message)]
struct CreateRequest {
    #[prost(string, tag = "1")]
    parent: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(message, optional, tag = "3")]
    resource: Option<Named>,
    #[prost(string, tag = "4")]
    request_id: String,
    #[prost(bool, tag = "5")]
    validate_only: bool,
}

/// Any resource, as far as it matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// Dataproc's own shape.
#[derive(Clone, PartialEq, prost::Message)]
struct CreateClusterRequest {
    #[prost(string, tag = "1")]
    project_id: String,
    #[prost(message, optional, tag = "2")]
    cluster: Option<Cluster>,
    #[prost(string, tag = "3")]
    region: String,
    #[prost(string, tag = "4")]
    request_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Cluster {
    #[prost(string, tag = "1")]
    project_id: String,
    #[prost(string, tag = "2")]
    cluster_name: String,
}
