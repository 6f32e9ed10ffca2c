//! Policies of single operations: `getIamPolicy`, `setIamPolicy`, `testIamPermissions`.
//!
//! A policy is kept in its operation's row, so it goes when the operation goes, and every server sees it.
//! Source: google/iam/v1/iam_policy.proto.

use std::sync::Arc;

use bytes::Bytes;
use longhaul_auth::policy::{BindingText, ConditionText, PolicyText};
use longhaul_core::{Error, Operation, OperationName, Reason, Refusal};
use longhaul_store::{Key, Priority};
use longhaul_wire::settings::PolicyVerb;
use prost::Message;

use crate::call::{Call, not_found};
use crate::operations::Operations;

/// Largest policy of one operation, in bytes; it is read with its row.
const POLICY_BYTES_MAX: usize = 64 << 10;
/// Most permissions that one test asks about.
const PERMISSIONS_MAX: usize = 100;

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Policy {
    #[prost(int32, tag = "1")]
    version: i32,
    #[prost(message, repeated, tag = "4")]
    bindings: Vec<Binding>,
    #[prost(bytes = "vec", tag = "3")]
    etag: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Binding {
    #[prost(string, tag = "1")]
    role: String,
    #[prost(string, repeated, tag = "2")]
    members: Vec<String>,
    #[prost(message, optional, tag = "3")]
    condition: Option<Expr>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Expr {
    #[prost(string, tag = "1")]
    expression: String,
    #[prost(string, tag = "2")]
    title: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    location: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct SetRequest {
    #[prost(string, tag = "1")]
    resource: String,
    #[prost(message, optional, tag = "2")]
    policy: Option<Policy>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct GetRequest {
    #[prost(string, tag = "1")]
    resource: String,
}

/// The same shape asks and answers, but for the resource.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct TestRequest {
    #[prost(string, tag = "1")]
    resource: String,
    #[prost(string, repeated, tag = "2")]
    permissions: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct TestResponse {
    #[prost(string, repeated, tag = "1")]
    permissions: Vec<String>,
}

impl Policy {
    /// As the rules of access read it.
    fn text(&self) -> PolicyText {
        let bindings = self.bindings.iter().map(|binding| BindingText {
            role: binding.role.clone(),
            members: binding.members.clone(),
            condition: binding.condition.as_ref().map(|expr| ConditionText {
                expression: expr.expression.clone(),
                title: expr.title.clone(),
                description: expr.description.clone(),
                location: expr.location.clone(),
            }),
        });
        PolicyText { bindings: bindings.collect() }
    }
}

/// A kept policy as the rules of access read it; nothing where it cannot be read.
pub(crate) fn text_of(operation: &Operation) -> Option<PolicyText> {
    let grants = operation.grants.as_ref()?;
    Policy::decode(&*grants.policy).ok().map(|policy| policy.text())
}

impl Operations {
    /// Answers a method of `google.iam.v1.IAMPolicy` about an operation.
    pub(crate) async fn policy(&self, call: &Call, verb: PolicyVerb) -> Result<Bytes, Error> {
        match verb {
            PolicyVerb::Get => {
                let request = GetRequest::decode(&*call.message).map_err(undecodable)?;
                let operation = self.found(&request.resource, call).await?;
                Ok(kept(&operation).encode_to_vec().into())
            }
            PolicyVerb::Set => self.set_policy(call).await,
            PolicyVerb::Test => {
                let request = TestRequest::decode(&*call.message).map_err(undecodable)?;
                let permissions = self.test(request, call).await?;
                Ok(TestResponse { permissions }.encode_to_vec().into())
            }
        }
    }

    async fn set_policy(&self, call: &Call) -> Result<Bytes, Error> {
        let request = SetRequest::decode(&*call.message).map_err(undecodable)?;
        let name = self.policy_name(&request.resource, call)?;
        let policy = request.policy.unwrap_or_default();
        self.access
            .read_policy(&policy.text())
            .map_err(|why| Error::new(Reason::InvalidValue, why.clone()).at_field("policy", why))?;
        let expected = match policy.etag.as_slice() {
            [] => None,
            etag => Some(etag.try_into().map(u64::from_be_bytes).unwrap_or(u64::MAX)),
        };
        let bytes = Policy { etag: Vec::new(), ..policy }.encode_to_vec();
        if bytes.len() > POLICY_BYTES_MAX {
            let what = format!("has {} bytes; at most {POLICY_BYTES_MAX} are allowed", bytes.len());
            return Err(Error::new(Reason::InvalidValue, format!("the policy {what}"))
                .at_field("policy", what));
        }
        let (bytes, now) = (Arc::<[u8]>::from(bytes), self.clock.now());
        let api = call.api.clone();
        let decide = Arc::new(move |operation: Option<&Operation>| {
            let operation = operation
                .filter(|operation| operation.visible(now))
                .filter(|operation| api.as_ref().is_none_or(|api| *api.name() == operation.api))
                .ok_or(Refusal::NotFound)?;
            longhaul_core::set_grants(operation, bytes.clone(), expected, now)
        });
        let applied = self
            .store
            .update(Key::Name(name.clone()), Priority::Normal, decide)
            .await
            .map_err(|failure| failure.into_error(&name))?;
        Ok(kept(&applied.operation).encode_to_vec().into())
    }

    /// Which of the permissions the caller has. An operation that does not exist is no error: whoever asks
    /// must not learn of it. Source: iam_policy.proto, `TestIamPermissions`.
    async fn test(&self, request: TestRequest, call: &Call) -> Result<Vec<String>, Error> {
        if request.permissions.len() > PERMISSIONS_MAX {
            let what = format!("has more than {PERMISSIONS_MAX} entries");
            return Err(Error::new(Reason::InvalidValue, format!("permissions {what}"))
                .at_field("permissions", what));
        }
        let name = self.policy_name(&request.resource, call)?;
        let Some(api) = &call.api else { return Ok(Vec::new()) };
        let row = self.store.get(&name).await?;
        let row = row.filter(|row| row.api == *api.name() && row.visible(self.clock.now()));
        let mut granted = request.permissions;
        let identity = &call.caller.identity;
        granted.retain(|one| self.access.has(identity, api, one, name.as_str(), row.as_deref()));
        Ok(granted)
    }

    async fn found(&self, resource: &str, call: &Call) -> Result<Arc<Operation>, Error> {
        let name = self.policy_name(resource, call)?;
        let row = self.store.get(&name).await?.filter(|row| row.visible(self.clock.now()));
        let fits =
            |row: &Arc<Operation>| call.api.as_ref().is_none_or(|api| row.api == *api.name());
        row.filter(fits).ok_or_else(|| not_found(&name))
    }

    fn policy_name(&self, resource: &str, call: &Call) -> Result<OperationName, Error> {
        let name = OperationName::parse(resource)?;
        let fits = call.api.as_ref().is_none_or(|api| api.parent_of_name(resource).is_some());
        match fits {
            true => Ok(name),
            false => Err(Error::new(
                Reason::InvalidName,
                "resource is not the name of an operation; this server keeps policies of operations alone",
            )
            .at_field("resource", "not the name of an operation")),
        }
    }
}

/// An operation's policy as it is answered: empty where none was set, and always with an etag.
fn kept(operation: &Operation) -> Policy {
    let grants = operation.grants.as_ref();
    let policy = grants.and_then(|grants| Policy::decode(&*grants.policy).ok());
    let etag = grants.map_or(0, |grants| grants.etag).to_be_bytes().to_vec();
    Policy { etag, ..policy.unwrap_or_default() }
}

fn undecodable(error: prost::DecodeError) -> Error {
    Error::new(
        Reason::InvalidValue,
        format!("the request is not the message it should be: {error}"),
    )
}
