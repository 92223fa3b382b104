//! HTTP/1.1 keep-alive with the gateway's routes: `PUT` and `GET /entity/{schema}/{key}`.

use super::http_message::Message;
use super::{Address, Answer, Connection, Driver, Parsed, Request, Stream};
use crate::document::TEMPLATE;
use anyhow::{Result, bail};
use std::borrow::Cow;
use std::io::Write;

/// The HTTP gateway of a server.
pub struct Http {
    address: Address,
    schema: String,
    /// The header lines every request has.
    headers: String,
}

impl Http {
    /// With a bearer credential, which may be empty.
    pub fn new(address: Address, schema: String, credential: &str) -> Self {
        let authorization = match credential {
            "" => String::new(),
            credential => format!("Authorization: Bearer {credential}\r\n"),
        };
        let host = match &address {
            Address::Tcp(host) => host.clone(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        Self { address, schema, headers: format!(" HTTP/1.1\r\nHost: {host}\r\n{authorization}") }
    }

    fn with_body(&self, head: &str, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.headers.as_bytes());
        out.extend_from_slice(b"Content-Type: application/json\r\nContent-Length: ");
        out.extend_from_slice(body.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body);
    }

    fn path(&self, method: &str, key: &str, out: &mut Vec<u8>) {
        for part in [method, " /entity/", &self.schema, "/", key] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

impl Driver for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn connect(&mut self, count: usize) -> Result<Vec<Connection>> {
        (0..count).map(|_| Ok(Connection { stream: Stream::connect(&self.address)?, lane: None })).collect()
    }

    fn install(&mut self) -> Result<()> {
        let mut stream = Stream::connect(&self.address)?;
        let mut request = Vec::new();
        self.with_body(&format!("PUT /schema/{}", self.schema), TEMPLATE.as_bytes(), &mut request);
        stream.write_all(&request)?;
        stream.receive(|bytes| match self.parse(bytes)? {
            Some(Parsed { answer: Answer::Refused(code), .. }) => bail!("the template was refused: {code}"),
            parsed => Ok(parsed.map(|_| ())),
        })
    }

    fn write_request(&mut self, _ticket: u64, request: Request<'_>, out: &mut Vec<u8>) {
        match request {
            Request::Read { key } => {
                self.path("GET", key, out);
                out.extend_from_slice(self.headers.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Request::Write { key, document } => {
                self.path("PUT", key, out);
                self.with_body("", document, out);
            }
        }
    }

    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Parsed<'a>>> {
        let Some(message) = Message::parse(bytes)? else { return Ok(None) };
        let body = message.body;
        // A stored document and the confirmation of a write are both 200: the request tells which one it is.
        let answer = match message.status {
            201 | 204 => Answer::Stored,
            200 if message.is_json && body.starts_with(br#"{"status":"#) => Answer::Stored,
            200 => Answer::Document(Cow::Borrowed(body)),
            404 => Answer::Missing,
            status => Answer::Refused(Cow::Owned(format!("http {status}"))),
        };
        Ok(Some(Parsed { consumed_bytes: message.consumed_bytes, ticket: None, version: message.version, answer }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver() -> Http {
        Http::new(Address::from("127.0.0.1:1"), "s".to_owned(), "secret")
    }

    #[test]
    fn requests_name_route_host_and_credential() {
        let mut out = Vec::new();
        driver().write_request(1, Request::Read { key: "k" }, &mut out);
        driver().write_request(2, Request::Write { key: "k", document: b"{}" }, &mut out);
        let head = "HTTP/1.1\r\nHost: 127.0.0.1:1\r\nAuthorization: Bearer secret\r\n";
        let put = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        let expected = format!("GET /entity/s/k {head}\r\nPUT /entity/s/k {head}{put}");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn replies_are_taken_one_by_one_and_only_whole() {
        let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n\
            HTTP/1.1 404 Not Found\r\nCONTENT-LENGTH: 1\r\n\r\nxHTTP/1.1 503 Busy\r\ncontent-length: 3\r\n\r\nabc";
        let expected =
            [Answer::Document(b"{}"[..].into()), Answer::Stored, Answer::Missing, Answer::Refused("http 503".into())];
        let mut rest = &stream[..];
        for answer in expected {
            let parsed = driver().parse(rest).unwrap().unwrap();
            assert_eq!(parsed.answer, answer);
            for cut in 0..parsed.consumed_bytes {
                assert_eq!(driver().parse(&rest[..cut]).unwrap(), None);
            }
            rest = &rest[parsed.consumed_bytes..];
        }
        assert!(rest.is_empty());
        let versioned = driver().parse(b"HTTP/1.1 201 Created\r\netag: \"17\"\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(versioned.unwrap().unwrap().version, Some(17));
        assert!(driver().parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
