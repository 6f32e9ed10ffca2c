//! Who started a bulk cancel, and what that one may cancel of what is found.
//!
//! A bulk cancel goes on after its caller has left, and on another server after a crash, so whom policies
//! mean is kept with it: beside the fields of its request, under a number that those never use. Policies are
//! asked anew for each operation, so whoever loses a permission meanwhile cancels no more.

use std::sync::Arc;

use longhaul_auth::{Identity, Principal};
use longhaul_core::{Error, Operation};
use longhaul_wire::v1::BulkCancelRequest;
use prost::Message as _;

use crate::access::Access;

/// What is kept beside a request.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Kept {
    #[prost(message, optional, tag = "1000")]
    asker: Option<KeptAsker>,
}

/// What decisions depend on, but for time and scopes: those were looked at when the bulk cancel began.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct KeptAsker {
    /// Such as `user:ann@example.com`.
    #[prost(string, tag = "1")]
    member: String,
    #[prost(string, repeated, tag = "2")]
    groups: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    sets: Vec<String>,
}

/// Whoever started a bulk cancel.
#[derive(Clone)]
pub(super) struct Asker {
    access: Arc<Access>,
    identity: Arc<Identity>,
}

impl Asker {
    /// Who calls.
    pub(super) fn of(identity: &Arc<Identity>, access: &Arc<Access>) -> Self {
        Self { access: access.clone(), identity: identity.clone() }
    }

    /// Who is kept beside a request. With none, as where nobody was asked, nobody in particular.
    pub(super) fn kept(request: &[u8], access: &Arc<Access>) -> Result<Self, prost::DecodeError> {
        let asker = Kept::decode(request)?.asker.unwrap_or_default();
        let shared = |texts: Vec<String>| texts.into_iter().map(Arc::from).collect();
        let principal = Principal::from_member(&asker.member).unwrap_or(Principal::Anonymous);
        let mut identity = Identity::of(principal);
        identity.groups = shared(asker.groups);
        identity.sets = shared(asker.sets);
        Ok(Self { access: access.clone(), identity: Arc::new(identity) })
    }

    /// The request with who asked beside it.
    pub(super) fn keep(&self, request: &BulkCancelRequest) -> Vec<u8> {
        let owned = |texts: &[Arc<str>]| texts.iter().map(|text| text.to_string()).collect();
        let asker = (!self.identity.is_anonymous()).then(|| KeptAsker {
            member: self.identity.principal.to_string(),
            groups: owned(&self.identity.groups),
            sets: owned(&self.identity.sets),
        });
        // Fields of two messages one after the other are those of one.
        [request.encode_to_vec(), Kept { asker }.encode_to_vec()].concat()
    }

    /// Fails unless they may cancel this operation now.
    pub(super) fn check(&self, row: &Operation) -> Result<(), Error> {
        self.access.may_cancel(&self.identity, row)
    }

    /// Whether they may.
    pub(super) fn may(&self, row: &Operation) -> bool {
        self.check(row).is_ok()
    }
}
