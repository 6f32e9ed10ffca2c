//! Whom a client certificate means.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use longhaul_auth::{Identity, Principal};
use parking_lot::Mutex;

use crate::config::Auth;
use crate::tls::{ClientCertificate, NameKind};

/// Certificates whose identity is remembered; beyond that all are forgotten at once.
const REMEMBERED_MAX: usize = 10_000;

/// Identities of certificates.
pub(super) struct Certificates {
    /// Members by name, such as `dns:worker-7.example`, as configured.
    members: BTreeMap<String, Principal>,
    /// By thumbprint.
    remembered: Mutex<HashMap<String, Arc<Identity>>>,
}

impl Certificates {
    pub(super) fn new(config: &Auth) -> Self {
        let members = config.certificates.iter();
        let members = members
            .filter_map(|(name, member)| Some((name.clone(), Principal::from_member(member)?)));
        Self { members: members.collect(), remembered: Mutex::default() }
    }

    /// Who shows this certificate. An e-mail address is one; any other name is a principal of its own, unless
    /// the configuration says whom it means.
    pub(super) fn identity(&self, certificate: &ClientCertificate) -> Arc<Identity> {
        if let Some(found) = self.remembered.lock().get(&certificate.thumbprint) {
            return found.clone();
        }
        let name = &certificate.name;
        let key = format!("{}:{}", name.kind, name.value);
        let principal = self.members.get(&key).cloned().unwrap_or_else(|| {
            let own = || {
                let name = format!("principal://certificate/{}/{}", name.kind, name.value);
                Principal::Federated(name.into())
            };
            let address = match name.kind {
                NameKind::Email if name.value.ends_with(".gserviceaccount.com") => {
                    Principal::from_member(&format!("serviceAccount:{}", name.value))
                }
                NameKind::Email => Principal::from_member(&format!("user:{}", name.value)),
                NameKind::Uri | NameKind::Dns | NameKind::CommonName => None,
            };
            address.unwrap_or_else(own)
        });
        let mut identity = Identity::of(principal);
        identity.subject = certificate.subject.as_str().into();
        identity.sets = Arc::from([Arc::from("principalSet://certificate/*")]);
        identity.expires_at = Some(certificate.expires_at);
        let identity = Arc::new(identity);
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(certificate.thumbprint.clone(), identity.clone());
        identity
    }
}
