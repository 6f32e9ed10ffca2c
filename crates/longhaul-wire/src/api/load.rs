//! Puts an API together from its files and checks that they fit.

mod start;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use longhaul_core::Error;

use super::method::{Method, MethodKind, StartMethod};
use super::pattern::is_version;
use super::service_config::{ServiceConfig, in_file};
use super::{Api, NamePattern};
use crate::bundled;
use crate::convert::ServerFields;
use crate::http_rule::{HttpRule, Router};
use crate::message::{Descriptors, Service, ServiceMethod};
use crate::settings::{OperationsVerb, PolicyVerb, Settings, invalid, nearest};

const OPERATIONS: &str = "google.longrunning.Operations";
const OPERATION: &str = "google.longrunning.Operation";

/// Services that an API's files bring along and that are not the API's own.
const IAM_POLICY: &str = "google.iam.v1.IAMPolicy";
const MIXINS: [&str; 4] = [
    OPERATIONS,
    "google.cloud.location.Locations",
    IAM_POLICY,
    "google.longrunning.ExtendedOperations",
];

/// What an API is loaded from.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApiSource<'a> {
    /// An encoded `google.protobuf.FileDescriptorSet` with all its imports.
    pub descriptor_set: &'a [u8],
    /// Where it came from, for messages.
    pub descriptor_set_file: &'a str,
    /// A `google.api.Service` as YAML; may be empty: then annotations alone count.
    pub service_config: &'a str,
    /// Where it came from, for messages.
    pub service_config_file: &'a str,
    /// Our settings as YAML; may be empty.
    pub settings: &'a str,
    /// Where they came from, for messages.
    pub settings_file: &'a str,
    /// Longhaul's own API: every method is served natively, there is no Operations service, and no
    /// URL prefix.
    pub native: bool,
}

pub(super) fn load(source: &ApiSource<'_>) -> Result<Api, Error> {
    let descriptors = Descriptors::parse(source.descriptor_set)
        .map_err(|error| in_file(error, source.descriptor_set_file))?;
    let config = ServiceConfig::parse(source.service_config, source.service_config_file)?;
    let settings = Settings::parse(source.settings, source.settings_file)?;
    let loader = Loader { source, descriptors, config, settings };
    loader.load()
}

struct Loader<'a> {
    source: &'a ApiSource<'a>,
    descriptors: Descriptors,
    config: ServiceConfig,
    settings: Settings,
}

impl Loader<'_> {
    fn load(self) -> Result<Api, Error> {
        let services = self.services()?;
        self.check_selectors()?;
        let name = self.name(&services);
        let prefix = self.prefix(&name)?;
        let version = self.version(&services);
        let mut methods = Vec::new();
        for service in &services {
            for method in service.methods() {
                methods.push(Arc::new(self.method(service, &method, &prefix)?));
            }
        }
        if !self.source.native {
            methods.extend(self.operations_methods()?);
            methods.extend(self.policy_methods()?);
        }
        self.check_settings(&methods)?;
        let router =
            router(&methods).map_err(|error| in_file(error, self.source.descriptor_set_file))?;
        let server_fields = self.server_fields(&methods)?;
        Ok(Api {
            patterns: self.patterns(&methods)?,
            by_grpc_path: methods.iter().map(|m| (m.grpc_path.clone(), m.clone())).collect(),
            by_full_name: methods.iter().map(|m| (m.full_name.clone(), m.clone())).collect(),
            title: if self.config.title.is_empty() { name.clone() } else { self.config.title },
            name: name.into(),
            version,
            prefix,
            descriptors: self.descriptors,
            settings: self.settings,
            methods,
            router,
            server_fields,
            native: self.source.native,
        })
    }

    /// The services that the configuration lists, or all but mixins when it lists none.
    fn services(&self) -> Result<Vec<Service>, Error> {
        if self.config.services.is_empty() {
            let own = |service: &Service| !MIXINS.contains(&service.full_name());
            return Ok(self.descriptors.services().filter(own).collect());
        }
        let mut services = Vec::new();
        for name in self.config.services.iter().filter(|name| !MIXINS.contains(&name.as_str())) {
            let service = self.descriptors.service(name).ok_or_else(|| {
                self.config_error(format!(
                    "apis lists {name}, which {} does not declare; correct the name or compile the file that declares it",
                    self.source.descriptor_set_file
                ))
            })?;
            services.push(service);
        }
        Ok(services)
    }

    /// A selector of a service that is here must name one of its methods; rules for services that
    /// are not here, such as mixins that nobody compiled, are ignored.
    fn check_selectors(&self) -> Result<(), Error> {
        for selector in self.config.http_selectors() {
            let (service, method) = selector.rsplit_once('.').unwrap_or(("", selector));
            let Some(declared) = self.descriptors.service(service) else { continue };
            if declared.method(method).is_none() {
                let names: Vec<String> =
                    declared.methods().map(|method| method.name().to_owned()).collect();
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                let hint = nearest(method, &known)
                    .map_or_else(String::new, |name| format!("; did you mean {service}.{name}?"));
                return Err(self.config_error(format!(
                    "an HTTP rule selects {selector}, but {service} has no such method{hint}"
                )));
            }
        }
        Ok(())
    }

    fn name(&self, services: &[Service]) -> String {
        if !self.config.name.is_empty() {
            return self.config.name.clone();
        }
        let host = services.iter().find_map(Service::default_host);
        host.or_else(|| services.first().map(|service| service.package().to_owned()))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "api".into())
    }

    fn prefix(&self, name: &str) -> Result<String, Error> {
        if self.source.native {
            return Ok(String::new());
        }
        let prefix = match &self.settings.prefix {
            Some(prefix) => prefix.clone(),
            None => name.split('.').next().unwrap_or_default().to_owned(),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if !prefix.chars().all(plain) {
            return Err(self.settings_error(format!(
                "prefix {prefix:?} is not a single path segment of letters, digits, - and _"
            )));
        }
        Ok(prefix)
    }

    fn version(&self, services: &[Service]) -> String {
        if let Some(version) = &self.settings.api_version {
            return version.clone();
        }
        let mut packages = services.iter().map(Service::package);
        let last = |package: &str| package.rsplit('.').next().map(str::to_owned);
        packages
            .find_map(|package| last(package).filter(|word| is_version(word)))
            .unwrap_or_default()
    }

    fn method(
        &self,
        service: &Service,
        declared: &ServiceMethod,
        prefix: &str,
    ) -> Result<Method, Error> {
        let full_name = declared.full_name();
        let rules = self.rules(declared)?;
        let kind = if self.source.native {
            MethodKind::Native
        } else if declared.output().full_name() == OPERATION {
            MethodKind::Start(Box::new(self.start(service, declared, &rules, prefix)?))
        } else {
            MethodKind::Other
        };
        let scopes = self.config.scopes(&full_name).map(<[String]>::to_vec);
        Ok(Method {
            grpc_path: declared.grpc_path(),
            kind,
            input: declared.input(),
            output: declared.output(),
            rules,
            client_streaming: declared.client_streaming(),
            server_streaming: declared.server_streaming(),
            scopes: scopes.unwrap_or_else(|| service.oauth_scopes()),
            deadline: self.config.deadline(&full_name),
            full_name: full_name.into(),
        })
    }

    /// The configuration's rules of a method in place of its annotation, checked.
    fn rules(&self, declared: &ServiceMethod) -> Result<Vec<HttpRule>, Error> {
        let (rules, file) = match self.config.http_rules(&declared.full_name()) {
            Some(rules) => (Ok(rules.to_vec()), self.source.service_config_file),
            None => (declared.http_rules(), self.source.descriptor_set_file),
        };
        let rules = rules.map_err(|error| in_file(error, file))?;
        for rule in &rules {
            rule.check(&declared.input(), &declared.output())
                .map_err(|error| in_file(error, file))?;
        }
        Ok(rules)
    }

    /// The Operations mixin, always in its newest form. When the configuration has rules for it,
    /// only those count; otherwise its own annotations do.
    fn operations_methods(&self) -> Result<Vec<Arc<Method>>, Error> {
        let common = bundled::common()?;
        let service = common.service(OPERATIONS).ok_or_else(|| {
            invalid("apis/common", format!("the descriptor set lacks {OPERATIONS}; make it again"))
        })?;
        let configured =
            self.config.http_selectors().any(|selector| selector.starts_with(OPERATIONS));
        let mut methods = Vec::new();
        for verb in OperationsVerb::ALL {
            let Some(declared) = service.method(verb.method()) else { continue };
            let full_name = declared.full_name();
            let rules = match self.config.http_rules(&full_name) {
                Some(rules) => rules.to_vec(),
                None if configured => Vec::new(),
                None => declared.http_rules()?,
            };
            for rule in &rules {
                rule.check(&declared.input(), &declared.output())
                    .map_err(|error| in_file(error, self.source.service_config_file))?;
            }
            let scopes = self.config.scopes(&full_name).map(<[String]>::to_vec);
            let own =
                self.descriptors.services().find(|service| !service.oauth_scopes().is_empty());
            let own = own.map(|service| service.oauth_scopes());
            methods.push(Arc::new(Method {
                grpc_path: declared.grpc_path(),
                kind: MethodKind::Operations(verb),
                input: declared.input(),
                output: declared.output(),
                rules,
                client_streaming: false,
                server_streaming: false,
                scopes: scopes.or(own).unwrap_or_default(),
                deadline: self.config.deadline(&full_name),
                full_name: full_name.into(),
            }));
        }
        Ok(methods)
    }

    /// The policy mixin, for an API whose configuration lists it; only what it has rules for over HTTP.
    fn policy_methods(&self) -> Result<Vec<Arc<Method>>, Error> {
        if !self.config.services.iter().any(|service| service == IAM_POLICY) {
            return Ok(Vec::new());
        }
        let common = bundled::common()?;
        let service = common.service(IAM_POLICY).ok_or_else(|| {
            invalid("apis/common", format!("the descriptor set lacks {IAM_POLICY}; make it again"))
        })?;
        let mut methods = Vec::new();
        for verb in PolicyVerb::ALL {
            let Some(declared) = service.method(verb.method()) else { continue };
            let full_name = declared.full_name();
            let rules = self.config.http_rules(&full_name).map(<[HttpRule]>::to_vec);
            let rules = rules.unwrap_or_default();
            for rule in &rules {
                rule.check(&declared.input(), &declared.output())
                    .map_err(|error| in_file(error, self.source.service_config_file))?;
            }
            let scopes = self.config.scopes(&full_name).map(<[String]>::to_vec);
            methods.push(Arc::new(Method {
                grpc_path: declared.grpc_path(),
                kind: MethodKind::Policy(verb),
                input: declared.input(),
                output: declared.output(),
                rules,
                client_streaming: false,
                server_streaming: false,
                scopes: scopes.unwrap_or_else(|| service.oauth_scopes()),
                deadline: self.config.deadline(&full_name),
                full_name: full_name.into(),
            }));
        }
        Ok(methods)
    }

    /// Shapes of operation names: those of GetOperation's rules or, where it has none, of another
    /// rule that names one operation; then the settings' own.
    fn patterns(&self, methods: &[Arc<Method>]) -> Result<Vec<NamePattern>, Error> {
        let verbs = [
            OperationsVerb::Get,
            OperationsVerb::Delete,
            OperationsVerb::Cancel,
            OperationsVerb::Wait,
        ];
        let mut patterns: Vec<NamePattern> = Vec::new();
        for verb in verbs {
            let of_verb =
                |m: &&Arc<Method>| matches!(m.kind, MethodKind::Operations(v) if v == verb);
            for rule in methods.iter().filter(of_verb).flat_map(|method| &method.rules) {
                patterns.extend(NamePattern::of_template(&rule.template)?);
            }
            if !patterns.is_empty() {
                break;
            }
        }
        if let Some(own) = &self.settings.operations.name {
            patterns.push(NamePattern::parse(own)?);
        }
        if patterns.is_empty() && !self.source.native {
            patterns.push(NamePattern::parse("operations/*")?);
        }
        let mut seen = HashSet::new();
        patterns.retain(|pattern| seen.insert(pattern.as_str().to_owned()));
        Ok(patterns)
    }

    fn server_fields(
        &self,
        methods: &[Arc<Method>],
    ) -> Result<HashMap<String, ServerFields>, Error> {
        let mut fields = HashMap::new();
        for start in methods.iter().filter_map(|method| method.start()) {
            let ty = &start.metadata_type;
            if fields.contains_key(ty.full_name()) {
                continue;
            }
            let settings = self.settings.metadata.get(ty.full_name());
            let found = ServerFields::of(ty, settings).map_err(|why| {
                self.settings_error(format!("metadata of {}: {why}", ty.full_name()))
            })?;
            fields.insert(ty.full_name().to_owned(), found);
        }
        Ok(fields)
    }

    /// A setting for a method, type or field that nobody has is a mistake.
    fn check_settings(&self, methods: &[Arc<Method>]) -> Result<(), Error> {
        let starts: Vec<&str> =
            methods.iter().filter(|m| m.start().is_some()).map(|m| &*m.full_name).collect();
        let mut configured = self.settings.methods.keys();
        if let Some(name) = configured.find(|name| !starts.contains(&name.as_str())) {
            return Err(self.settings_error(unknown("methods", name, &starts)));
        }
        let starts: Vec<&StartMethod> = methods.iter().filter_map(|m| m.start()).collect();
        let types: Vec<&str> = starts.iter().map(|start| start.metadata_type.full_name()).collect();
        for (name, metadata) in &self.settings.metadata {
            if !types.contains(&name.as_str()) {
                return Err(self.settings_error(unknown("metadata", name, &types)));
            }
            for path in metadata.fields.keys() {
                let used = starts.iter().any(|start| {
                    start.metadata_type.full_name() == name
                        && start.metadata_sources.iter().any(|source| source.field() == path)
                });
                if !used {
                    return Err(self.settings_error(format!(
                        "metadata of {name}: no request has a field for {path:?}; correct its request.… path"
                    )));
                }
            }
        }
        Ok(())
    }

    fn settings_error(&self, what: String) -> Error {
        invalid(self.source.settings_file, what)
    }

    fn config_error(&self, what: String) -> Error {
        invalid(self.source.service_config_file, what)
    }
}

fn unknown(key: &str, name: &str, known: &[&str]) -> String {
    let hint =
        nearest(name, known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
    format!("{key} has {name:?}, which starts no operation of this API{hint}")
}

fn router(methods: &[Arc<Method>]) -> Result<Router<(Arc<Method>, usize)>, Error> {
    let mut router = Router::new();
    for method in methods {
        for (position, rule) in method.rules.iter().enumerate() {
            router.insert(rule, (method.clone(), position))?;
        }
    }
    Ok(router)
}
