//! The first metadata of an operation: fields filled from its request, as the API's settings say.

use longhaul_core::Error;

use crate::api::StartMethod;
use crate::message::{Kind, Message, MessageType, SingularKind};

/// How one metadata field is filled when an operation starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetadataSource {
    field: String,
    candidates: Vec<Candidate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Candidate {
    Request(String),
    Verb,
    VerbInCapitals,
    Summary,
    Target,
    TargetId,
    Parent,
    Constant(String),
}

/// What sources read.
pub(super) struct SourceFacts<'a> {
    pub request: &'a Message,
    pub start: &'a StartMethod,
    pub parent: &'a str,
    pub target: &'a str,
}

impl MetadataSource {
    /// Reads a setting; `None` when this request has none of the fields it names. Fails with a
    /// sentence when the metadata type has no such field, or cannot hold the value.
    pub(crate) fn resolve(
        field: &str,
        values: &[String],
        metadata: &MessageType,
        input: &MessageType,
    ) -> Result<Option<Self>, String> {
        let target = metadata
            .field_at(field)
            .ok_or_else(|| format!("{} has no field {field:?}", metadata.full_name()))?;
        let mut candidates = Vec::new();
        for value in values {
            let candidate = match value.as_str() {
                "$verb" => Candidate::Verb,
                "$VERB" => Candidate::VerbInCapitals,
                "$summary" => Candidate::Summary,
                "$target" => Candidate::Target,
                "$target_id" => Candidate::TargetId,
                "$parent" => Candidate::Parent,
                other if other.starts_with('$') => {
                    return Err(format!(
                        "{other} is unknown; known are $verb, $VERB, $summary, $target, $target_id, $parent"
                    ));
                }
                other => match other.strip_prefix("request.") {
                    Some(path) => match input.field_at(path) {
                        Some(source) if source.kind() == target.kind() => {
                            Candidate::Request(path.into())
                        }
                        Some(_) | None => continue,
                    },
                    None => Candidate::Constant(other.into()),
                },
            };
            if !matches!(candidate, Candidate::Request(_)) {
                check_text(&target.kind(), &candidate, field)?;
            }
            candidates.push(candidate);
        }
        let source = Self { field: field.into(), candidates };
        Ok((!source.candidates.is_empty()).then_some(source))
    }

    /// The metadata field it fills.
    pub(crate) fn field(&self) -> &str {
        &self.field
    }

    /// Fills the field from the first candidate that is not empty.
    pub(super) fn fill(
        &self,
        metadata: &mut Message,
        facts: &SourceFacts<'_>,
    ) -> Result<(), Error> {
        for candidate in &self.candidates {
            let text = match candidate {
                Candidate::Request(path) => match facts.request.find(path) {
                    Some((_, value)) => return metadata.set_value(&self.field, value.clone()),
                    None => continue,
                },
                Candidate::Verb => facts.start.verb.to_string(),
                Candidate::VerbInCapitals => facts.start.verb.to_uppercase(),
                Candidate::Summary => facts.start.summary.clone(),
                Candidate::Target => facts.target.to_owned(),
                Candidate::TargetId => facts.target.rsplit('/').next().unwrap_or("").to_owned(),
                Candidate::Parent => facts.parent.to_owned(),
                Candidate::Constant(text) => text.clone(),
            };
            if text.is_empty() {
                continue;
            }
            let is_enum = matches!(
                metadata.message_type().field_at(&self.field).map(|field| field.kind()),
                Some(Kind::Single(SingularKind::Enum(_)))
            );
            return if is_enum {
                // A verb that the enum does not have is left out; constants were checked at load.
                let _ = metadata.set_enum(&self.field, &text);
                Ok(())
            } else {
                metadata.set_string(&self.field, text)
            };
        }
        Ok(())
    }
}

/// Words go into text and enum fields only; a constant must be one of the enum's names.
fn check_text(kind: &Kind, candidate: &Candidate, field: &str) -> Result<(), String> {
    let Kind::Single(kind) = kind else {
        return Err(format!("field {field:?} takes only request.… values"));
    };
    match (kind, candidate) {
        (SingularKind::Enum(names), Candidate::Constant(text)) => {
            let known: Vec<&str> = names.values().map(|(name, _)| name).collect();
            let wrong = || format!("{text:?} is none of {}", known.join(", "));
            known.contains(&text.as_str()).then_some(()).ok_or_else(wrong)
        }
        (SingularKind::String | SingularKind::Enum(_), _) => Ok(()),
        _ => Err(format!("field {field:?} takes only request.… values")),
    }
}
