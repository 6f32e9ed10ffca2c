//! The methods that start operations: types, limits, where their requests keep what matters.

use std::time::Duration;

use longhaul_core::Error;

use super::super::method::{StartMethod, summary, words};
use super::{Loader, invalid};
use crate::bundled;
use crate::http_rule::{Body, HttpMethod, HttpRule};
use crate::message::{MessageType, Service, ServiceMethod};
use crate::settings::{MethodSettings, RequestIdFormat};
use crate::start::MetadataSource;

/// A repeated `request_id` returns the first operation for at least this long.
/// Source: the `request_id` of Google's APIs, "at least 60 minutes".
const REQUEST_ID_WINDOW_MIN: Duration = Duration::from_secs(3600);

impl Loader<'_> {
    /// Reads and checks a method that returns an operation.
    pub(super) fn start(
        &self,
        service: &Service,
        declared: &ServiceMethod,
        rules: &[HttpRule],
        prefix: &str,
    ) -> Result<StartMethod, Error> {
        let full_name = declared.full_name();
        let info = declared.operation_info().unwrap_or_default();
        let resolve = |role: &str, name: &str| {
            if name.is_empty() {
                return Err(invalid(
                    self.source.descriptor_set_file,
                    format!(
                        "method {full_name} returns an operation but declares no {role}; add option (google.longrunning.operation_info) with it"
                    ),
                ));
            }
            self.resolve(name, service.package())?.ok_or_else(|| {
                invalid(
                    self.source.descriptor_set_file,
                    format!(
                        "method {full_name} declares {role} {name:?}, which the descriptor set does not have; correct the name or compile the file that declares it"
                    ),
                )
            })
        };
        let response_type = resolve("response_type", &info.response_type)?;
        let metadata_type = resolve("metadata_type", &info.metadata_type)?;
        let own = self.settings.methods.get(&full_name).cloned().unwrap_or_default();
        let settings = own.over(&self.settings.defaults);
        let window = settings.request_id_window.map_or(REQUEST_ID_WINDOW_MIN, |span| span.0);
        if window < REQUEST_ID_WINDOW_MIN {
            return Err(self.settings_error(format!(
                "request_id_window of {full_name} is below 60m; Google's APIs promise at least that"
            )));
        }
        let first_word = words(declared.name()).into_iter().next().unwrap_or_default();
        Ok(StartMethod {
            policy: settings.policy(),
            deadline: settings.deadline.map(|span| span.0),
            start_by: settings.start_by.map(|span| span.0),
            queue: settings.queue.clone().unwrap_or_else(|| prefix.to_owned()).into(),
            verb: settings.verb.clone().unwrap_or(first_word).into(),
            summary: summary(declared.name()),
            request_id_format: settings.request_id_format.unwrap_or(RequestIdFormat::Any),
            request_id_window: window,
            resource_id: self.resource_id(&settings, &declared.input(), rules, &full_name)?,
            metadata_sources: self.metadata_sources(&metadata_type, &declared.input())?,
            start_permissions: match settings.start_permissions {
                Some(permissions) => permissions,
                None => vec![start_permission(prefix, declared.name(), rules)],
            },
            permissions: settings.permissions,
            response_type,
            metadata_type,
        })
    }

    /// Well-known types are there even when no file of the API imports them.
    fn resolve(&self, name: &str, package: &str) -> Result<Option<MessageType>, Error> {
        if let Some(found) = self.descriptors.resolve(name, package) {
            return Ok(Some(found));
        }
        let name = name.trim_start_matches('.');
        let well_known = name.starts_with("google.protobuf.");
        Ok(bundled::common()?.message(name).filter(|_| well_known))
    }

    /// Where a create's request holds the id of the new resource. Source: AIP-133.
    fn resource_id(
        &self,
        settings: &MethodSettings,
        input: &MessageType,
        rules: &[HttpRule],
        method: &str,
    ) -> Result<Vec<String>, Error> {
        if let Some(path) = &settings.resource_id {
            if input.field_at(path).is_none() {
                return Err(self.settings_error(format!(
                    "resource_id of {method} is {path:?}, which {} does not have",
                    input.full_name()
                )));
            }
            return Ok(vec![path.clone()]);
        }
        let mut resources: Vec<&str> = Vec::new();
        for rule in rules {
            if let Body::Field(field) = &rule.body {
                resources.push(field);
            }
        }
        let required = input.fields().filter(|field| field.is_required());
        resources.extend(required.filter(|f| f.message_type().is_some()).map(|field| field.name()));
        let mut paths = Vec::new();
        for resource in resources {
            let guesses = [
                format!("{resource}_id"),
                format!("{resource}.{resource}_id"),
                format!("{resource}.{resource}_name"),
                format!("{resource}.id"),
            ];
            for path in guesses {
                if input.field_at(&path).is_some() && !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        Ok(paths)
    }

    fn metadata_sources(
        &self,
        metadata: &MessageType,
        input: &MessageType,
    ) -> Result<Vec<MetadataSource>, Error> {
        let Some(settings) = self.settings.metadata.get(metadata.full_name()) else {
            return Ok(Vec::new());
        };
        let mut sources = Vec::new();
        for (path, values) in &settings.fields {
            let source = MetadataSource::resolve(path, values.as_slice(), metadata, input)
                .map_err(|why| {
                    self.settings_error(format!("metadata of {}: {why}", metadata.full_name()))
                })?;
            sources.extend(source);
        }
        Ok(sources)
    }
}

/// What Google's APIs call the permission to start, by the first rule: `clouddeploy.releases.create` for a
/// POST to `…/releases`, `dataproc.clusters.stop` for one to `…/clusters/*:stop`. Source: the IAM pages of
/// the bundled APIs.
fn start_permission(service: &str, method: &str, rules: &[HttpRule]) -> String {
    let name = words(method);
    let first = name.first().map_or("start", String::as_str);
    let Some(rule) = rules.first() else {
        return format!("{service}.{}.{first}", name.get(1).map_or("operations", String::as_str));
    };
    let template = &rule.template;
    let text = template.as_str();
    let text = template.verb().map_or(text, |verb| &text[..text.len() - verb.len() - 1]);
    // A variable stands for its pattern; one without stands for a single segment.
    let spelled = text.split('{').map(|piece| match piece.split_once('}') {
        Some((variable, rest)) => {
            format!("{}{rest}", variable.split_once('=').map_or("*", |(_, pattern)| pattern))
        }
        None => piece.to_owned(),
    });
    let spelled = spelled.collect::<String>();
    let collection = spelled.rsplit('/').find(|part| !part.is_empty() && !part.contains('*'));
    let collection = collection.unwrap_or("operations");
    let standard = match rule.method {
        HttpMethod::Patch | HttpMethod::Put => "update",
        HttpMethod::Delete => "delete",
        HttpMethod::Post | HttpMethod::Get | HttpMethod::Custom(_) => "create",
    };
    format!("{service}.{collection}.{}", template.verb().unwrap_or(standard))
}
