//! What a handler sees of a request: checked names, headers it may ask for, and the body.

use super::body::{self, RequestBody};
use super::names::Query;
use super::pace::Pace;
use super::problem::Problem;
use crate::command::{ErrorCode, Failure};
use crate::limits::HTTP_DISCARD_BYTES_MAX;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use std::borrow::Cow;
use std::rc::Rc;

/// A request on its way to a handler.
pub struct Request<'a> {
    /// First name of the path: a schema id.
    pub schema: Cow<'a, str>,
    /// Second name of the path: an entity key.
    pub key: Cow<'a, str>,
    /// Query parameters.
    pub query: Query<'a>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The body, not read yet.
    pub body: &'a mut RequestBody,
    /// The connection's pace.
    pub pace: &'a Rc<Pace>,
    /// Largest body.
    pub body_bytes_max: usize,
}

impl Request<'_> {
    /// Reads the body of a write after its media type was found acceptable.
    pub async fn read_json(&mut self) -> Result<Bytes, Failure> {
        check_json(self.headers)?;
        body::read(self.body, self.pace, self.body_bytes_max).await
    }

    /// Whether the client asked for newline-delimited JSON.
    pub fn wants_lines(&self) -> bool {
        self.headers.get_all(ACCEPT).iter().any(accepts_lines)
    }
}

/// A request must say, once, whom it is for (RFC 9112, section 3.2); HTTP/1.0 need not.
pub fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Failure> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.as_bytes().iter().all(|byte| may_be_in_host(*byte)) => Ok(()),
        (None, _) if version == Version::HTTP_10 => Ok(()),
        _ => {
            Err(Failure::new(ErrorCode::BadRequest, "an HTTP/1.1 request carries exactly one Host header, HOST[:PORT]"))
        }
    }
}

/// Host names, addresses and ports are made of these (RFC 3986, section 3.2.2).
fn may_be_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// The only transfer coding known here is chunked. A body under a further one would be stored as it is coded.
pub fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if codings.all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        return Ok(());
    }
    let problem = Problem::new(ErrorCode::BadRequest, "the only Transfer-Encoding taken here is 'chunked'");
    Err(problem.with_status(StatusCode::NOT_IMPLEMENTED))
}

/// The credential of `Authorization: Bearer <credential>`; the scheme's case does not matter.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Failure> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Failure::new(ErrorCode::Unauthenticated, "the request carries two Authorization headers"));
    }
    let value = value.as_bytes();
    let scheme = value.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    match (scheme, value.get(7..)) {
        (Some(_), Some(credential)) => Ok(Some(credential.trim_ascii())),
        _ => Err(Failure::new(
            ErrorCode::Unauthenticated,
            "only 'Authorization: Bearer <credential>' is known here, no other scheme",
        )),
    }
}

/// Whether an unread body can be dropped without closing the connection: small, of known size, and not held back
/// by the client until it is asked for.
pub fn is_disposable(headers: &HeaderMap, body: &RequestBody) -> bool {
    !headers.contains_key(EXPECT) && body.exact_bytes().is_some_and(|bytes| bytes <= HTTP_DISCARD_BYTES_MAX as u64)
}

fn check_json(headers: &HeaderMap) -> Result<(), Failure> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Failure::new(
            ErrorCode::UnsupportedMediaType,
            "a compressed body is not taken here: send it without Content-Encoding",
        ));
    }
    if headers.get(CONTENT_TYPE).is_none_or(is_json) {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::UnsupportedMediaType, "the body must be JSON: send 'Content-Type: application/json'"))
}

/// `application/json` or any `application/…+json`, parameters aside.
fn is_json(value: &HeaderValue) -> bool {
    if value == "application/json" {
        return true;
    }
    let Ok(text) = value.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.strip_prefix("application/") {
        Some(subtype) => subtype == "json" || subtype.strip_suffix("+json").is_some_and(|name| !name.is_empty()),
        None => false,
    }
}

fn accepts_lines(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    text.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/x-ndjson"));
        let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        named && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[test]
    fn media_types_of_bodies() {
        let cases = [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/schema+json", true),
            ("application/+json", false),
            ("text/json", false),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
        ];
        for (value, expected) in cases {
            assert_eq!(check_json(&headers("content-type", value)).is_ok(), expected, "{value}");
        }
        assert!(check_json(&HeaderMap::new()).is_ok());
        assert!(check_json(&headers("content-encoding", "gzip")).is_err());
        assert!(check_json(&headers("content-encoding", "Identity")).is_ok());
    }

    #[test]
    fn bearer_credentials() {
        let cases: [(&str, Option<&[u8]>); 6] = [
            ("Bearer k", Some(b"k")),
            ("bEARER   k ", Some(b"k")),
            ("Bearer ", Some(b"")),
            ("Bearer", None),
            ("Basic a2V5", None),
            ("Bearerk", None),
        ];
        for (value, expected) in cases {
            assert_eq!(bearer(&headers("authorization", value)).ok().flatten(), expected, "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn lines_are_sent_only_when_asked_for() {
        let cases = [
            ("application/x-ndjson", true),
            ("text/html, Application/X-NDJSON;q=0.5", true),
            ("application/x-ndjson;q=0", false),
            ("application/json", false),
            ("*/*", false),
        ];
        for (value, expected) in cases {
            assert_eq!(accepts_lines(&HeaderValue::from_static(value)), expected, "{value}");
        }
    }
}
