//! Errors as problem documents (RFC 9457). Every refusal of this skin is one; none holds content or a secret.

use crate::command::{ErrorCode, Failure, Version, Violation};
use http::StatusCode;
use serde::Serialize;

/// One key's share in a failed multi-key write.
#[derive(Clone, Debug)]
pub struct KeyFailure {
    /// The entity key.
    pub key: String,
    /// What happened to it.
    pub failure: Failure,
}

/// What goes into a problem document beside the failure itself.
#[derive(Clone, Debug)]
pub struct Problem {
    failure: Failure,
    status: StatusCode,
    more: Option<Box<More>>,
}

/// What few problems have.
#[derive(Clone, Debug)]
enum More {
    /// Methods the route takes, for 405.
    Allow(&'static str),
    /// One sentence a reason, for a server that is not ready.
    Reasons(Vec<String>),
    /// A multi-key write: keys that are durable though the whole failed, and keys that failed.
    Keys { versions: Vec<(String, Version)>, failures: Vec<KeyFailure> },
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let status = StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { failure, status, more: None }
    }
}

impl Problem {
    /// A problem with a code and a sentence.
    pub fn new(code: ErrorCode, detail: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Failure::new(code, detail).into()
    }

    /// The same with a status of its own.
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Names the methods the route takes.
    pub fn with_allow(self, allow: &'static str) -> Self {
        Self { more: Some(Box::new(More::Allow(allow))), ..self }
    }

    /// The methods the route takes, for 405.
    pub fn allow(&self) -> Option<&'static str> {
        match self.more.as_deref() {
            Some(More::Allow(allow)) => Some(allow),
            _ => None,
        }
    }

    /// Says why a server is not ready, one sentence a reason.
    pub fn with_reasons(self, reasons: Vec<String>) -> Self {
        Self { more: Some(Box::new(More::Reasons(reasons))), ..self }
    }

    /// Says what became of each key.
    pub fn with_keys(self, versions: Vec<(String, Version)>, failures: Vec<KeyFailure>) -> Self {
        Self { more: Some(Box::new(More::Keys { versions, failures })), ..self }
    }

    /// The status it is sent with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The current version, when a condition failed on an existing entity.
    pub fn version(&self) -> Option<Version> {
        self.failure.version
    }

    /// The document.
    pub fn to_json(&self) -> Vec<u8> {
        let (reasons, versions, failures): (&[String], _, &[KeyFailure]) = match self.more.as_deref() {
            None | Some(More::Allow(_)) => (&[], None, &[]),
            Some(More::Reasons(reasons)) => (reasons, None, &[]),
            Some(More::Keys { versions, failures }) => (&[], Some(Versions(versions)), failures),
        };
        let keys = failures.iter().map(|entry| ErrorEntry::of_key(&entry.key, &entry.failure));
        let violations = self.failure.violations.iter().map(ErrorEntry::of_violation);
        let document = Document {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.failure.message,
            error: self.failure.code.name(),
            key: self.failure.key.as_deref(),
            version: self.failure.version,
            versions,
            errors: keys.chain(violations).collect(),
            reasons,
        };
        // Strings, numbers and lists of them: serializing to memory cannot fail.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    error: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<Versions<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ErrorEntry<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    reasons: &'a [String],
}

#[derive(Serialize, Default)]
struct ErrorEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keyword: Option<&'a str>,
    detail: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<ErrorEntry<'a>>,
}

impl<'a> ErrorEntry<'a> {
    fn of_violation(violation: &'a Violation) -> Self {
        Self {
            pointer: Some(&violation.pointer),
            keyword: Some(&violation.keyword),
            detail: &violation.detail,
            ..Self::default()
        }
    }

    fn of_key(key: &'a str, failure: &'a Failure) -> Self {
        Self {
            key: Some(key),
            status: Some(failure.code.http_status()),
            error: Some(failure.code.name()),
            detail: &failure.message,
            violations: failure.violations.iter().map(Self::of_violation).collect(),
            ..Self::default()
        }
    }
}

/// Keys and their versions as one JSON object, in the order given.
pub struct Versions<'a>(pub &'a [(String, Version)]);

impl Serialize for Versions<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, version)| (key, version)))
    }
}
