//! etcd over its JSON gateway (v3): `POST /v3/kv/put` and `/v3/kv/range`, names and values in base64.
//!
//! A range that finds nothing cannot be told from a put by its reply alone, and counts as misordered: load the keys.

use super::http_message::Message;
use super::{Address, Answer, Connection, Driver, Parsed, Request, Stream, number};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// An etcd server.
pub struct Etcd {
    address: Address,
    /// The header lines every request has.
    headers: String,
    body: String,
}

impl Etcd {
    /// At an address of its client URLs.
    pub fn new(address: Address) -> Self {
        let headers = format!(" HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: ");
        Self { address, headers, body: String::new() }
    }

    fn post(&self, route: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"POST ");
        out.extend_from_slice(route.as_bytes());
        out.extend_from_slice(self.headers.as_bytes());
        out.extend_from_slice(self.body.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(self.body.as_bytes());
    }
}

impl Driver for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn connect(&mut self, count: usize) -> Result<Vec<Connection>> {
        (0..count).map(|_| Ok(Connection { stream: Stream::connect(&self.address)?, lane: None })).collect()
    }

    fn install(&mut self) -> Result<()> {
        Ok(())
    }

    fn write_request(&mut self, _ticket: u64, request: Request<'_>, out: &mut Vec<u8>) {
        self.body.clear();
        self.body.push_str("{\"key\":\"");
        match request {
            Request::Read { key } => {
                STANDARD.encode_string(key, &mut self.body);
                self.body.push_str("\"}");
                self.post("/v3/kv/range", out);
            }
            Request::Write { key, document } => {
                STANDARD.encode_string(key, &mut self.body);
                self.body.push_str("\",\"value\":\"");
                STANDARD.encode_string(document, &mut self.body);
                self.body.push_str("\"}");
                self.post("/v3/kv/put", out);
            }
        }
    }

    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Parsed<'a>>> {
        let Some(Message { status, body, consumed_bytes, .. }) = Message::parse(bytes)? else { return Ok(None) };
        let (version, answer) = match (status, member(body, b"\"value\":\"")) {
            (200, Some(value)) => {
                let document = STANDARD.decode(value).context("a value that is not base64")?;
                (member(body, b"\"mod_revision\":\""), Answer::Document(Cow::Owned(document)))
            }
            (200, None) => (member(body, b"\"revision\":\""), Answer::Stored),
            (status, _) => (None, Answer::Refused(Cow::Owned(format!("http {status}")))),
        };
        let version = version.and_then(number).map(|version| version as u64);
        Ok(Some(Parsed { consumed_bytes, ticket: None, version, answer }))
    }
}

/// The text that follows a member's name, up to the next quote. The gateway writes no spaces, and base64 and decimal
/// numbers have nothing to escape.
fn member<'a>(body: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let start = body.windows(name.len()).position(|part| part == name)? + name.len();
    let rest = &body[start..];
    Some(&rest[..rest.iter().position(|byte| *byte == b'"')?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn requests_carry_names_and_values_in_base64() {
        let mut driver = Etcd::new(Address::from("127.0.0.1:1"));
        let mut out = Vec::new();
        driver.write_request(1, Request::Write { key: "key", document: b"value" }, &mut out);
        driver.write_request(2, Request::Read { key: "key" }, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("POST /v3/kv/put HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"), "{text}");
        assert!(text.contains("Content-Length: 33\r\n\r\n{\"key\":\"a2V5\",\"value\":\"dmFsdWU=\"}POST /v3/kv/range"));
        assert!(text.ends_with("Content-Length: 14\r\n\r\n{\"key\":\"a2V5\"}"), "{text}");
    }

    #[test]
    fn replies_give_documents_with_the_revision_that_wrote_them() {
        let mut driver = Etcd::new(Address::from("127.0.0.1:1"));
        let put = reply(r#"{"header":{"cluster_id":"3","revision":"7","raft_term":"2"}}"#);
        let parsed = driver.parse(&put).unwrap().unwrap();
        assert_eq!((parsed.answer, parsed.version, parsed.consumed_bytes), (Answer::Stored, Some(7), put.len()));
        let range = reply(
            r#"{"header":{"revision":"9"},"kvs":[{"key":"a2V5","mod_revision":"7","version":"1","value":"dmFsdWU="}]}"#,
        );
        let parsed = driver.parse(&range).unwrap().unwrap();
        assert_eq!((parsed.answer, parsed.version), (Answer::Document(b"value"[..].into()), Some(7)));
        assert_eq!(driver.parse(&range[..range.len() - 1]).unwrap(), None);
    }
}
