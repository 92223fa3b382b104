//! A reply before it is HTTP: status, a few known headers, a body. Handlers make these; one place renders them.

use super::body::ReplyBody;
use super::problem::Problem;
use crate::command::{Document, Failure, Version};
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use std::io::Write;

/// Seconds after which a 503 is worth another try.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Media types of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    Json,
    Problem,
    Lines,
    Metrics,
    Html,
}

impl ContentType {
    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            ContentType::Json => "application/json",
            ContentType::Problem => "application/problem+json",
            ContentType::Lines => "application/x-ndjson",
            ContentType::Metrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ContentType::Html => "text/html; charset=utf-8",
        })
    }
}

/// What a handler answers.
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    content_type: Option<ContentType>,
    version: Option<Version>,
    allow: Option<&'static str>,
    /// The connection ends with this reply.
    pub close: bool,
    /// The body.
    pub body: ReplyBody,
}

impl Reply {
    /// No body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, content_type: None, version: None, allow: None, close: false, body: ReplyBody::Empty }
    }

    /// A body of a type.
    pub fn of(status: StatusCode, content_type: ContentType, body: ReplyBody) -> Self {
        Self { content_type: Some(content_type), body, ..Self::empty(status) }
    }

    /// 200 with JSON text.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self::of(StatusCode::OK, ContentType::Json, ReplyBody::whole(body.into()))
    }

    /// 200 with a stored document, sent from the memory it lies in.
    pub fn document(version: Version, document: Document) -> Self {
        let body = Bytes::from_owner(Body(document));
        Self { version: Some(version), ..Self::json(body) }
    }

    /// Another status.
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The entity's version as its ETag.
    pub fn with_version(self, version: Version) -> Self {
        Self { version: Some(version), ..self }
    }

    /// The methods of the resource.
    pub fn with_allow(self, allow: &'static str) -> Self {
        Self { allow: Some(allow), ..self }
    }

    /// The HTTP response; `headers` is a map whose memory may be used again.
    pub fn into_response(self, mut headers: HeaderMap) -> Response<ReplyBody> {
        headers.clear();
        if let Some(content_type) = self.content_type {
            headers.insert(CONTENT_TYPE, content_type.header());
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(version) = self.version {
            headers.insert(ETAG, entity_tag(version));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"deltadb\""));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
            }
            _ => {}
        }
        if self.content_type == Some(ContentType::Html) {
            page_headers(&mut headers);
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let body = ReplyBody::whole(problem.to_json().into());
        let reply = Self::of(problem.status(), ContentType::Problem, body);
        Self { version: problem.version(), allow: problem.allow(), ..reply }
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Problem::from(failure).into()
    }
}

/// What keeps the page from loading, running or being framed by anything but itself.
fn page_headers(headers: &mut HeaderMap) {
    if let Ok(policy) = HeaderValue::from_str(crate::gateway::ui::content_security_policy()) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// `"<version>"`.
fn entity_tag(version: Version) -> HeaderValue {
    let mut text = [0u8; 24];
    let mut rest = &mut text[..];
    // 20 digits and two quotes fit.
    let written = write!(rest, "\"{version}\"").is_ok();
    let unused = rest.len();
    let used = text.len() - unused;
    debug_assert!(written);
    HeaderValue::from_bytes(&text[..used]).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The document's own memory as an owner of bytes.
struct Body(Document);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self.0.body()
    }
}
