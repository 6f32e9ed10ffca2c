//! Putting access together: keys, accounts and policies from the configuration, roles from the APIs.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use longhaul_auth::policy::{ApiFacts, Decider, Policies, Roles};
use longhaul_auth::token::{HostOf, Issuer, Rules, Verifier};
use longhaul_auth::{Identity, Mode};
use longhaul_core::Error;
use longhaul_store::Store;
use longhaul_wire::api::{Api, MethodKind};
use longhaul_wire::apis::Apis;
use longhaul_wire::settings::OperationsVerb;

use super::certificates::Certificates;
use super::{Access, Oversight, Sources};
use crate::clock::Clock;
use crate::config::{Auth, CancelRule};
use crate::local::Current;

impl Access {
    /// Reads the files that the configuration names. Fails with `CONFIG_INVALID`.
    pub(crate) async fn new(
        config: &Auth,
        local: Option<Current>,
        apis: Arc<Apis>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        oversight: Vec<Arc<dyn Oversight>>,
    ) -> Result<Self, Error> {
        let facts: Vec<_> = apis.all().iter().map(|api| facts(api)).collect();
        let roles = Roles::predefined(&facts);
        let known = apis.clone();
        let host_of: HostOf = Arc::new(move |host| {
            let own = known.native().filter(|_| matches!(host, "longhaul" | "longhaul.v1"));
            own.or_else(|| known.by_host(host)).map(|api| api.name().clone())
        });
        let issuers = config.issuers.iter().map(|issuer| Issuer {
            name: issuer.name.clone(),
            audiences: issuer.audiences.clone(),
            groups_claim: issuer.groups_claim.clone(),
            scopes_default: issuer.scopes_default.clone(),
        });
        // This server's own tokens come last, so that the others keep their places.
        let own = local.as_ref().map(|_| Issuer {
            name: longhaul_auth::local::ISSUER.to_owned(),
            audiences: vec![longhaul_auth::local::ISSUER.to_owned()],
            ..Issuer::default()
        });
        let verifier = Arc::new(Verifier::new(Rules {
            issuers: issuers.chain(own).collect(),
            host_of,
            leeway: config.leeway,
            token_bytes_max: config.token_bytes_max,
            remembered_max: config.tokens_remembered_max,
        }));
        let nothing = Policies::none(roles.clone());
        let decider = Arc::new(Decider::new(nothing, config.decisions_remembered_max));
        let sources = Sources::new(
            config.clone(),
            local,
            roles,
            verifier.clone(),
            decider.clone(),
            clock.clone(),
        )?;
        if config.mode() != Mode::Off {
            sources.load().await?;
        }
        Ok(Self {
            mode: config.mode(),
            owners_cancel: config.cancel == CancelRule::Owner,
            anonymous: Arc::new(Identity::anonymous()),
            verifier,
            decider,
            sources: Arc::new(sources),
            certificates: Certificates::new(config),
            needs: apis.all().iter().map(|api| (api.name().clone(), Needs::of(api))).collect(),
            apis,
            store,
            clock,
            recorded: oversight.iter().any(|one| one.records()),
            oversight: oversight.into(),
            calls: AtomicU64::new(1),
        })
    }
}

/// What an API's operations need, worked out once; by verb.
pub(super) struct Needs {
    /// `resource.type` in conditions.
    pub(super) kind: String,
    pub(super) all: [Vec<String>; OperationsVerb::ALL.len()],
    pub(super) further: [Vec<String>; OperationsVerb::ALL.len()],
}

impl Needs {
    fn of(api: &Api) -> Self {
        let mut needs = Self {
            kind: format!("{}/Operation", api.name()),
            all: Default::default(),
            further: Default::default(),
        };
        for verb in OperationsVerb::ALL {
            needs.all[verb as usize] = api.permissions(verb, None);
            needs.further[verb as usize] = api.further_permissions(verb);
        }
        needs
    }
}

/// The permissions that an API declares, for its predefined roles.
fn facts(api: &Api) -> ApiFacts {
    let of = |verb| [api.permissions(verb, None), api.further_permissions(verb)].concat();
    let starts = api.methods().iter().filter_map(|method| match &method.kind {
        MethodKind::Start(start) => Some(start.start_permissions.clone()),
        MethodKind::Operations(_)
        | MethodKind::Policy(_)
        | MethodKind::Native
        | MethodKind::Other => None,
    });
    let policies = api.methods().iter().filter_map(|method| match &method.kind {
        MethodKind::Policy(verb) => verb.permission(api.service_label()),
        MethodKind::Operations(_)
        | MethodKind::Start(_)
        | MethodKind::Native
        | MethodKind::Other => None,
    });
    ApiFacts {
        label: api.service_label().to_owned(),
        read: [of(OperationsVerb::Get), of(OperationsVerb::List), of(OperationsVerb::Wait)]
            .concat(),
        operate: [of(OperationsVerb::Cancel), starts.flatten().collect()].concat(),
        administer: [of(OperationsVerb::Delete), policies.collect()].concat(),
    }
}
