//! Which permissions a call needs, on what, and whether the caller has them.
//!
//! Owns that nothing here tells whether an operation exists: what is asked of a caller, and what a refusal
//! says, is the same for one that does and one that does not, unless the caller may read it.

use std::sync::Arc;

use longhaul_auth::Identity;
use longhaul_auth::identity::CLOUD_PLATFORM;
use longhaul_auth::policy::{CANCEL_ANY, CLAIM, Policy, PolicyText, Resource};
use longhaul_auth::refusal::{self, Asked};
use longhaul_core::{Error, Operation, OperationName, Timestamp};
use longhaul_store::{ClaimFilter, OWN_API};
use longhaul_wire::api::{Api, Method, MethodKind};
use longhaul_wire::settings::OperationsVerb;
use longhaul_wire::v1;
use prost::Message as _;

use super::{Access, Checked, Wanted};
use crate::call::{Caller, DOMAIN};

/// What came of looking at a call.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) checked: Vec<Checked>,
    /// The answer to a caller who may not.
    pub(super) refused: Option<Error>,
}

/// One caller at one moment.
#[derive(Clone, Copy)]
struct Asker<'a> {
    access: &'a Access,
    identity: &'a Arc<Identity>,
    now: Timestamp,
    /// The policy of the one operation that is asked about.
    own: Option<&'a Policy>,
}

impl Access {
    /// Whether a caller may do what is wanted. An error is one of the store, or of a call that does not say
    /// which API it means.
    pub(super) async fn judge(
        &self,
        wanted: &Wanted,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Judged, Error> {
        let asker = Asker { access: self, identity: &caller.identity, now, own: None };
        let method = &*wanted.method;
        if let Some(api) = &wanted.api
            && let Some(refused) = asker.scope(api, method)
        {
            return Ok(Judged { refused: Some(refused), ..Judged::default() });
        }
        let resource = wanted.resource.as_str();
        match &method.kind {
            MethodKind::Operations(OperationsVerb::List) => {
                let api = match &wanted.api {
                    Some(api) => api,
                    None => self.apis.only_for_list(resource)?,
                };
                Ok(asker.list(api, method, resource))
            }
            MethodKind::Operations(verb) => {
                asker.operation(wanted.api.as_ref(), method, *verb, resource, false).await
            }
            MethodKind::Start(start) => {
                let Some(api) = &wanted.api else { return Ok(Judged::default()) };
                let mut judged = Judged::default();
                let parent = settled(api.parent_of_resource(resource));
                let named = if parent.len() < resource.len() { resource } else { parent };
                asker.ask(&mut judged, api.name(), &start.start_permissions, named, parent);
                if let Some(parent) = caller.parent_operation.as_deref()
                    && judged.refused.is_none()
                {
                    // A start must not tell whether the operation that it names as its parent exists.
                    let of_parent =
                        asker.operation(None, method, OperationsVerb::Get, parent, false).await?;
                    judged.checked.extend(of_parent.checked);
                    judged.refused = of_parent.refused;
                }
                Ok(judged)
            }
            MethodKind::Policy(verb) => {
                let Some(api) = &wanted.api else { return Ok(Judged::default()) };
                let needed: Vec<_> = verb.permission(api.service_label()).into_iter().collect();
                asker.policy(api, &needed, resource).await
            }
            MethodKind::Native => asker.native(method, wanted).await,
            MethodKind::Other => Ok(Judged::default()),
        }
    }

    /// Whether a caller has a permission on an operation.
    pub(crate) fn has(
        &self,
        identity: &Arc<Identity>,
        api: &Api,
        permission: &str,
        name: &str,
        row: Option<&Operation>,
    ) -> bool {
        let own = row.and_then(|row| self.own_policy(row));
        let asker = Asker { access: self, identity, now: self.clock.now(), own: own.as_ref() };
        self.is_off() || asker.has(api.name(), permission, name, parent_of(api, name))
    }

    /// Checks a policy against the roles there are. Fails in words.
    pub(crate) fn read_policy(&self, text: &PolicyText) -> Result<Policy, String> {
        self.decider.read(text)
    }

    /// The policy that an operation has of its own. One whose roles are gone grants nothing.
    fn own_policy(&self, row: &Operation) -> Option<Policy> {
        self.read_policy(&crate::iam::text_of(row)?).ok()
    }

    /// Whether a caller may still read an operation: for streams, which live long.
    pub(crate) fn may_read(&self, identity: &Arc<Identity>, row: &Operation) -> Result<(), Error> {
        if self.is_off() {
            return Ok(());
        }
        let own = self.own_policy(row);
        let asker = Asker { access: self, identity, now: self.clock.now(), own: own.as_ref() };
        let (api, name) = (&*row.api, &row.name);
        asker.alive("longhaul.v1.Operators.Watch")?;
        let mut judged = Judged::default();
        if api == OWN_API {
            asker.own(&mut judged, OperationsVerb::Get, name.as_str(), Some(&row.actor));
        } else if let Some(api) = self.apis.get(api) {
            let permissions = self.all(api, OperationsVerb::Get);
            let parent = parent_of(api, name.as_str());
            asker.ask(&mut judged, api.name(), permissions, name.as_str(), parent);
        }
        judged.refused.map_or(Ok(()), Err)
    }

    /// Fails unless a caller may cancel an operation, whatever the credential's scopes: for those who cancel
    /// many.
    pub(crate) fn may_cancel(
        &self,
        identity: &Arc<Identity>,
        row: &Operation,
    ) -> Result<(), Error> {
        let Some(api) = self.apis.get(&row.api).filter(|_| !self.is_off()) else { return Ok(()) };
        let own = self.own_policy(row);
        let asker = Asker { access: self, identity, now: self.clock.now(), own: own.as_ref() };
        let mut judged = Judged::default();
        asker.row(&mut judged, api, OperationsVerb::Cancel, row.name.as_str(), Some(row));
        judged.refused.map_or(Ok(()), Err)
    }

    /// Fails unless a caller may cancel whatever an API has under a parent, be it there or not.
    pub(crate) fn may_cancel_all(
        &self,
        identity: &Arc<Identity>,
        api: &Api,
        parent: &str,
    ) -> Result<(), Error> {
        if self.is_off() {
            return Ok(());
        }
        let asker = Asker { access: self, identity, now: self.clock.now(), own: None };
        let parent = settled(api.parent_of_list(parent).unwrap_or(parent));
        let mut judged = Judged::default();
        let permissions = self.all(api, OperationsVerb::Cancel);
        asker.ask(&mut judged, api.name(), permissions, parent, parent);
        judged.refused.map_or(Ok(()), Err)
    }

    /// What a worker may take of what it asks for: each method with its queue is a resource of its own. Fails
    /// when it asks for a method by name that it may not take, or may take nothing at all.
    pub(crate) fn claimable(
        &self,
        identity: &Arc<Identity>,
        asked: &ClaimFilter,
    ) -> Result<ClaimFilter, Error> {
        if self.is_off() {
            return Ok(asked.clone());
        }
        let asker = Asker { access: self, identity, now: self.clock.now(), own: None };
        asker.alive("longhaul.v1.Workers.Claim")?;
        let (mut allowed, mut denied) = (Vec::new(), None);
        for api in self.apis.all() {
            for method in api.start_methods() {
                let Some(start) = method.start() else { continue };
                if !asked.accepts(api.name(), &method.full_name, &start.queue) {
                    continue;
                }
                let parent = format!("apis/{}/queues/{}", api.name(), start.queue);
                let name = format!("{parent}/methods/{}", method.full_name);
                let resource = Resource {
                    name: &name,
                    parent: &parent,
                    kind: "longhaul/Method",
                    service: api.name(),
                };
                if self.decider.allows(identity, CLAIM, &resource, None, asker.now) {
                    allowed.push(method.full_name.clone());
                } else {
                    denied.get_or_insert(name);
                }
            }
        }
        match denied {
            None if !allowed.is_empty() => Ok(asked.clone()),
            Some(name) if !asked.methods.is_empty() || allowed.is_empty() => {
                Err(refusal::permission_denied(DOMAIN, CLAIM, &name))
            }
            None => Err(refusal::permission_denied(DOMAIN, CLAIM, "apis")),
            Some(_) => Ok(ClaimFilter { methods: allowed, ..asked.clone() }),
        }
    }

    /// Whether a worker's credential is the one that claimed an operation. Whoever's it is not learns nothing
    /// of the operation, not even that it exists.
    pub(crate) fn may_report(
        &self,
        identity: &Arc<Identity>,
        name: &str,
        operation: Option<&Operation>,
    ) -> Result<(), Error> {
        if self.is_off() || operation.is_some_and(|found| *found.holder == *identity.actor()) {
            return Ok(());
        }
        Err(refusal::permission_denied(DOMAIN, "longhaul.workers.report", name))
    }
}

impl Asker<'_> {
    /// Fails once the credential is over.
    fn alive(self, method: &str) -> Result<(), Error> {
        match self.identity.expired(self.now) {
            true => Err(refusal::credentials_expired(Asked { service: DOMAIN, method })),
            false => Ok(()),
        }
    }

    /// The refusal of a credential that is not good for the method.
    fn scope(self, api: &Api, method: &Method) -> Option<Error> {
        let scopes = &self.identity.scopes;
        let allowed = match api.is_native() {
            true => scopes.allow(&[CLOUD_PLATFORM.to_owned()], api.name()),
            false => scopes.allow(&method.scopes, api.name()),
        };
        let asked = Asked { service: api.name(), method: &method.full_name };
        (!allowed).then(|| refusal::scope_insufficient(asked))
    }

    fn has(self, service: &str, permission: &str, name: &str, parent: &str) -> bool {
        let kind = self.access.needs.get(service).map_or("longhaul/Operation", |api| &api.kind);
        let resource = Resource { name, parent, kind, service };
        self.access.decider.allows(self.identity, permission, &resource, self.own, self.now)
    }

    /// Asks for permissions until one is missing.
    fn ask(
        self,
        judged: &mut Judged,
        service: &str,
        permissions: &[String],
        name: &str,
        parent: &str,
    ) {
        for permission in permissions {
            if judged.refused.is_some() {
                return;
            }
            let granted = self.has(service, permission, name, parent);
            if self.access.recorded {
                judged.checked.push(Checked { permission: permission.clone(), granted });
            }
            if !granted {
                judged.refused = Some(refusal::permission_denied(service, permission, name));
            }
        }
    }

    fn list(self, api: &Api, method: &Method, name: &str) -> Judged {
        let mut judged = Judged { refused: self.scope(api, method), ..Judged::default() };
        let parent = settled(api.parent_of_list(name).unwrap_or(name));
        let permissions = self.access.all(api, OperationsVerb::List);
        self.ask(&mut judged, api.name(), permissions, parent, parent);
        judged
    }

    /// A verb on an operation. Without an API the operation decides, and the caller must be able to do it
    /// with each API that it could belong to, unless it is known to belong to one.
    async fn operation(
        self,
        api: Option<&Arc<Api>>,
        method: &Method,
        verb: OperationsVerb,
        name: &str,
        deleted_too: bool,
    ) -> Result<Judged, Error> {
        let access = self.access;
        let fitting: Vec<Arc<Api>>;
        let candidates = match api {
            Some(api) => std::slice::from_ref(api),
            None => {
                let every = access.apis.all().iter();
                fitting = every.filter(|api| api.parent_of_name(name).is_some()).cloned().collect();
                &fitting
            }
        };
        let needs_row =
            candidates.len() > 1 || candidates.iter().any(|api| self.has_further(api, verb));
        let row = match needs_row.then(|| OperationName::parse(name)) {
            Some(Ok(name)) => access.store.get(&name).await?,
            Some(Err(_)) | None => None,
        };
        let row = row.filter(|row| match deleted_too {
            true => !row.is_tombstone(),
            false => row.visible(self.now),
        });
        let mut first = Judged::default();
        for candidate in candidates {
            let own = row.as_deref().filter(|row| row.api == *candidate.name());
            let policy = own.and_then(|row| self.access.own_policy(row));
            let asker = Asker { own: policy.as_ref(), ..self };
            let judged = asker.one(candidate, method, verb, name, own);
            if own.is_some() && judged.refused.is_none() {
                return Ok(judged);
            }
            if first.refused.is_none() {
                first = judged;
            }
        }
        if first.refused.is_none() || needs_row {
            return Ok(first);
        }
        // The operation may have a policy of its own that says yes.
        let [only] = candidates else { return Ok(first) };
        let Some((row, own)) = self.policy_of(only, name).await? else { return Ok(first) };
        let asker = Asker { own: Some(&own), ..self };
        let judged = asker.one(only, method, verb, name, Some(&row));
        Ok(if judged.refused.is_none() { judged } else { first })
    }

    /// An operation with a policy of its own, if it is there and has one.
    async fn policy_of(
        self,
        api: &Api,
        name: &str,
    ) -> Result<Option<(Arc<Operation>, Policy)>, Error> {
        let Ok(name) = OperationName::parse(name) else { return Ok(None) };
        let row = self.access.store.get(&name).await?;
        let row = row.filter(|row| row.api == *api.name() && row.visible(self.now));
        Ok(row.and_then(|row| {
            let own = self.access.own_policy(&row)?;
            Some((row, own))
        }))
    }

    async fn policy(self, api: &Api, needed: &[String], name: &str) -> Result<Judged, Error> {
        let mut judged = Judged::default();
        let parent = parent_of(api, name);
        self.ask(&mut judged, api.name(), needed, name, parent);
        if judged.refused.is_none() {
            return Ok(judged);
        }
        let Some((_, own)) = self.policy_of(api, name).await? else { return Ok(judged) };
        let mut again = Judged::default();
        let asker = Asker { own: Some(&own), ..self };
        asker.ask(&mut again, api.name(), needed, name, parent);
        Ok(if again.refused.is_none() { again } else { judged })
    }

    /// Whether there are any of [`Self::further`].
    fn has_further(self, api: &Api, verb: OperationsVerb) -> bool {
        let is_owners = verb == OperationsVerb::Cancel && self.access.owners_cancel;
        is_owners || !self.access.further(api, verb).is_empty()
    }

    /// Permissions beside those that each operation of the API needs for a verb.
    fn further(self, api: &Api, verb: OperationsVerb) -> Vec<String> {
        let mut further = self.access.further(api, verb).to_vec();
        if verb == OperationsVerb::Cancel && self.access.owners_cancel {
            further.push(CANCEL_ANY.to_owned());
        }
        further
    }

    fn one(
        self,
        api: &Api,
        method: &Method,
        verb: OperationsVerb,
        name: &str,
        row: Option<&Operation>,
    ) -> Judged {
        let mut judged = Judged { refused: self.scope(api, method), ..Judged::default() };
        self.row(&mut judged, api, verb, name, row);
        judged
    }

    /// The same whatever the credential's scopes.
    fn row(
        self,
        judged: &mut Judged,
        api: &Api,
        verb: OperationsVerb,
        name: &str,
        row: Option<&Operation>,
    ) {
        let parent = parent_of(api, name);
        self.ask(judged, api.name(), self.access.all(api, verb), name, parent);
        if judged.refused.is_some() || !self.has_further(api, verb) {
            return;
        }
        let mut further = self.further(api, verb);
        match row {
            Some(row) => {
                let needed = api.permissions(verb, Some(&row.method));
                let is_owner = *row.actor == *self.identity.actor();
                further.retain(|one| match one.as_str() {
                    CANCEL_ANY => !is_owner,
                    one => needed.iter().any(|needed| needed == one),
                });
            }
            None => {
                // Whoever may read learns the truth, that there is none; others what they would learn of one
                // that needs everything.
                let mut read = self.access.all(api, OperationsVerb::Get).iter();
                if read.all(|permission| self.has(api.name(), permission, name, parent)) {
                    further.clear();
                }
            }
        }
        self.ask(judged, api.name(), &further, name, parent);
    }

    /// An operation of Longhaul's own: for those with the permission, and for who started it.
    fn own(self, judged: &mut Judged, verb: OperationsVerb, name: &str, actor: Option<&str>) {
        if actor.is_some_and(|actor| *actor == *self.identity.actor()) {
            return;
        }
        let permission = format!("longhaul.operations.{}", verb.name());
        self.ask(judged, DOMAIN, &[permission], name, "longhaul");
    }

    async fn own_or_other(
        self,
        method: &Method,
        verb: OperationsVerb,
        name: &str,
    ) -> Result<Judged, Error> {
        let is_own = name.starts_with("longhaul/");
        if !is_own {
            return self.operation(None, method, verb, name, true).await;
        }
        let row = match OperationName::parse(name) {
            Ok(name) => self.access.store.get(&name).await?,
            Err(_) => None,
        };
        let mut judged = Judged::default();
        self.own(&mut judged, verb, name, row.as_ref().map(|row| &*row.actor));
        Ok(judged)
    }

    /// A method of Longhaul's own API. What a message that cannot be read asks for is nothing; the method
    /// refuses it.
    async fn native(self, method: &Method, wanted: &Wanted) -> Result<Judged, Error> {
        let message = wanted.message.as_deref().unwrap_or_default();
        let name = wanted.resource.as_str();
        match method.name() {
            "Describe" | "Explain" => self.own_or_other(method, OperationsVerb::Get, name).await,
            "Cancel" | "Detach" => self.own_or_other(method, OperationsVerb::Cancel, name).await,
            "CancelByRequestId" => {
                let request = v1::CancelByRequestIdRequest::decode(message).unwrap_or_default();
                Ok(self.many(&request.api, &request.parent, OperationsVerb::Cancel))
            }
            // What may be cancelled of what is found is asked for each, by `may_cancel`.
            "BulkCancel" => {
                let request = v1::BulkCancelRequest::decode(message).unwrap_or_default();
                Ok(self.many(&request.api, &request.parent, OperationsVerb::List))
            }
            "Watch" => {
                let request = v1::WatchRequest::decode(message).unwrap_or_default();
                let mut all = Judged::default();
                for name in &request.names {
                    let judged = self.own_or_other(method, OperationsVerb::Get, name).await?;
                    all.checked.extend(judged.checked);
                    if judged.refused.is_some() {
                        all.refused = judged.refused;
                        return Ok(all);
                    }
                }
                if request.names.is_empty() {
                    all = self.many(&request.api, &request.parent, OperationsVerb::List);
                    if all.refused.is_none() {
                        let get = self.many(&request.api, &request.parent, OperationsVerb::Get);
                        all.checked.extend(get.checked);
                        all.refused = get.refused;
                    }
                }
                Ok(all)
            }
            // What a worker may take and report on is asked where that is known.
            _ => Ok(Judged::default()),
        }
    }

    /// A verb on whatever an API has under a parent.
    fn many(self, api: &str, parent: &str, verb: OperationsVerb) -> Judged {
        let mut judged = Judged::default();
        let fits = |known: &&Arc<Api>| &**known.name() == api || known.prefix() == api;
        let Some(api) = self.access.apis.all().iter().find(fits) else { return judged };
        let parent = settled(api.parent_of_list(parent).unwrap_or(parent));
        let all = [self.access.all(api, verb).to_vec(), self.further(api, verb)].concat();
        self.ask(&mut judged, api.name(), &all, parent, parent);
        judged
    }
}

/// What an operation lies under, as far as its name says.
fn parent_of<'n>(api: &Api, name: &'n str) -> &'n str {
    api.parent_of_name(name).unwrap_or_else(|| name.rsplit_once('/').map_or("", |(rest, _)| rest))
}

/// A parent up to its first wildcard: what is asked across many needs the permission on what they have in
/// common.
fn settled(parent: &str) -> &str {
    let mut end = 0;
    for part in parent.split('/') {
        if part == "-" {
            return parent[..end].trim_end_matches('/');
        }
        end += part.len() + 1;
    }
    parent
}

#[cfg(test)]
mod tests {
    use super::settled;

    #[test]
    fn wildcards_are_asked_for_on_what_they_have_in_common() {
        assert_eq!(settled("projects/p/locations/l"), "projects/p/locations/l");
        assert_eq!(settled("projects/p/locations/-"), "projects/p/locations");
        assert_eq!(settled("projects/-/locations/l"), "projects");
        assert_eq!(settled("-"), "");
        assert_eq!(settled(""), "");
        assert_eq!(settled("projects/p-/locations/l"), "projects/p-/locations/l");
    }
}
