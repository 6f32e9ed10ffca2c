//! HTTP rules: which verb and path a method is called under, and where its fields come from.
//!
//! Owns [`HttpRule`], its check against the request type, and the annotation's binary form; paths
//! are parsed in `template` and found in `router`. Source: google/api/http.proto.

mod router;
mod template;

use std::fmt;

use longhaul_core::{Error, Reason};

pub use router::{Found, Router};
pub use template::{Template, Variable};

use crate::message::{Field, Kind, MessageType, SingularKind};

/// The verb of an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HttpMethod {
    /// `GET`
    Get,
    /// `PUT`
    Put,
    /// `POST`
    Post,
    /// `DELETE`
    Delete,
    /// `PATCH`
    Patch,
    /// Any other, such as `HEAD`; in a rule, `*` stands for every verb.
    Custom(String),
}

impl HttpMethod {
    /// Reads a verb, in the case that HTTP demands: `get` is a custom one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "GET" => Self::Get,
            "PUT" => Self::Put,
            "POST" => Self::Post,
            "DELETE" => Self::Delete,
            "PATCH" => Self::Patch,
            other => Self::Custom(other.into()),
        }
    }

    /// The verb as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
            Self::Custom(verb) => verb,
        }
    }
}

impl fmt::Display for HttpMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the body of the request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing: the body is absent, blank, or `{}`.
    None,
    /// Every field that the path does not bind: `body: "*"`.
    All,
    /// This one field of the request.
    Field(String),
}

/// One way to call one method over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRule {
    /// Full name of the method, such as `google.longrunning.Operations.GetOperation`.
    pub selector: String,
    /// The verb.
    pub method: HttpMethod,
    /// The path.
    pub template: Template,
    /// What the body carries.
    pub body: Body,
    /// The field of the response that is sent instead of all of it.
    pub response_body: Option<String>,
}

impl HttpRule {
    /// Makes a rule from the words of a service configuration; an empty `body` is none.
    ///
    /// Fails with `API_INVALID` when the path does not parse.
    pub fn from_parts(
        selector: &str,
        method: HttpMethod,
        path: &str,
        body: &str,
        response_body: &str,
    ) -> Result<Self, Error> {
        let template = Template::parse(path).map_err(|mut error| {
            error.message = format!("HTTP rule of {selector}: {}", error.message);
            error.with("method", selector)
        })?;
        let body = match body {
            "" => Body::None,
            "*" => Body::All,
            field => Body::Field(field.into()),
        };
        let response_body = Some(response_body).filter(|field| !field.is_empty());
        Ok(Self {
            selector: selector.into(),
            method,
            template,
            body,
            response_body: response_body.map(Into::into),
        })
    }

    /// Checks that every field the rule names exists and can be bound.
    ///
    /// Fails with `API_INVALID`; the message names the rule, the field and the fix.
    pub fn check(&self, input: &MessageType, output: &MessageType) -> Result<(), Error> {
        for variable in self.template.variables() {
            let path = variable.field_path();
            let field = input.field_at(path).ok_or_else(|| self.no_field(path, input))?;
            if !binds_to_path(field) {
                let why = "a path variable must be a single text, number, truth value or enum";
                return Err(self.invalid(&format!("field {path:?} cannot stand in a path: {why}")));
            }
        }
        if let Body::Field(name) = &self.body
            && input.field(name).is_none()
        {
            return Err(self.no_field(name, input));
        }
        if let Some(name) = &self.response_body
            && output.field(name).is_none()
        {
            return Err(self.no_field(name, output));
        }
        Ok(())
    }

    fn no_field(&self, path: &str, ty: &MessageType) -> Error {
        self.invalid(&format!(
            "{} has no field {path:?}; correct the rule or the descriptor set",
            ty.full_name()
        ))
    }

    fn invalid(&self, why: &str) -> Error {
        Error::new(Reason::ApiInvalid, format!("HTTP rule {self}: {why}"))
            .with("method", self.selector.as_str())
            .with("rule", format!("{} {}", self.method, self.template))
    }
}

impl fmt::Display for HttpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.method, self.template, self.selector)
    }
}

fn binds_to_path(field: Field<'_>) -> bool {
    match field.kind() {
        Kind::Single(kind) => match kind {
            SingularKind::Bool
            | SingularKind::Int32
            | SingularKind::Int64
            | SingularKind::Uint32
            | SingularKind::Uint64
            | SingularKind::Float
            | SingularKind::Double
            | SingularKind::String
            | SingularKind::Bytes
            | SingularKind::Enum(_) => true,
            SingularKind::Message(_) => false,
        },
        Kind::Repeated(_) | Kind::Map(_, _) => false,
    }
}

/// The binary form of a rule in a method's options. Source: google/api/http.proto, `HttpRule`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AnnotatedRule {
    #[prost(string, optional, tag = "2")]
    get: Option<String>,
    #[prost(string, optional, tag = "3")]
    put: Option<String>,
    #[prost(string, optional, tag = "4")]
    post: Option<String>,
    #[prost(string, optional, tag = "5")]
    delete: Option<String>,
    #[prost(string, optional, tag = "6")]
    patch: Option<String>,
    #[prost(string, tag = "7")]
    body: String,
    #[prost(message, optional, tag = "8")]
    custom: Option<AnnotatedVerb>,
    #[prost(message, repeated, tag = "11")]
    additional_bindings: Vec<AnnotatedRule>,
    #[prost(string, tag = "12")]
    response_body: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnnotatedVerb {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    path: String,
}

impl AnnotatedRule {
    /// Reads the option's bytes: the main rule, then the additional bindings in their order.
    pub(crate) fn decode(selector: &str, bytes: &[u8]) -> Result<Vec<HttpRule>, Error> {
        let invalid = |why: &str| {
            Error::new(Reason::ApiInvalid, format!("HTTP annotation of {selector}: {why}"))
                .with("method", selector)
        };
        let main = <Self as prost::Message>::decode(bytes)
            .map_err(|cause| invalid(&format!("it cannot be read: {cause}")))?;
        let mut rules = vec![main.to_rule(selector)?];
        for binding in &main.additional_bindings {
            if !binding.additional_bindings.is_empty() {
                return Err(invalid("an additional binding must not have bindings of its own"));
            }
            rules.push(binding.to_rule(selector)?);
        }
        Ok(rules)
    }

    fn to_rule(&self, selector: &str) -> Result<HttpRule, Error> {
        let verbs = [
            (HttpMethod::Get, &self.get),
            (HttpMethod::Put, &self.put),
            (HttpMethod::Post, &self.post),
            (HttpMethod::Delete, &self.delete),
            (HttpMethod::Patch, &self.patch),
        ];
        let mut given =
            verbs.into_iter().filter_map(|(method, path)| Some((method, path.clone()?)));
        let named = given.next();
        let custom = self.custom.clone().map(|c| (HttpMethod::parse(&c.kind), c.path));
        let Some((method, path)) = named.or(custom) else {
            return Err(Error::new(
                Reason::ApiInvalid,
                format!("HTTP annotation of {selector}: it names no verb and path"),
            )
            .with("method", selector));
        };
        HttpRule::from_parts(selector, method, &path, &self.body, &self.response_body)
    }
}
