//! One HTTP/1.1 reply, as far as drivers need it: with a content-length, never chunked.

use super::{line, number};
use anyhow::{Context, Result, bail, ensure};

/// A reply that has wholly arrived.
pub(super) struct Message<'a> {
    pub status: usize,
    pub is_json: bool,
    /// The number in its ETag.
    pub version: Option<u64>,
    pub body: &'a [u8],
    pub consumed_bytes: usize,
}

impl<'a> Message<'a> {
    /// The first reply in `bytes`, or `None` until it is whole.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Self>> {
        let Some((first, mut after)) = line(bytes, 0) else { return Ok(None) };
        ensure!(first.starts_with(b"HTTP/1.1 ") && first.len() >= 12, "an answer that is not HTTP/1.1");
        let status = number(&first[9..12]).context("an answer without a status")?;
        let (mut body_bytes, mut is_json, mut version) = (None, false, None);
        loop {
            let Some((header, next)) = line(bytes, after) else { return Ok(None) };
            after = next;
            if header.is_empty() {
                break;
            }
            if let Some(value) = header_value(header, b"content-length") {
                body_bytes = Some(number(value).context("a content-length that is no number")?);
            } else if let Some(value) = header_value(header, b"content-type") {
                is_json = value.trim_ascii_start().starts_with(b"application/json");
            } else if let Some(value) = header_value(header, b"etag") {
                version = quoted(value).and_then(number).map(|version| version as u64);
            } else if header_value(header, b"transfer-encoding").is_some() {
                bail!("a chunked answer; documents are expected with a content-length");
            }
        }
        let length = match (status, body_bytes) {
            (204 | 304, _) => 0,
            (_, Some(length)) => length,
            (_, None) => bail!("an answer without a content-length"),
        };
        let Some(body) = bytes.get(after..after + length) else { return Ok(None) };
        Ok(Some(Self { status, is_json, version, body, consumed_bytes: after + length }))
    }
}

/// Status and body of a reply, once it is whole.
pub fn http_body(bytes: &[u8]) -> Result<Option<(usize, Vec<u8>)>> {
    Ok(Message::parse(bytes)?.map(|message| (message.status, message.body.to_vec())))
}

fn quoted(value: &[u8]) -> Option<&[u8]> {
    value.trim_ascii().strip_prefix(b"\"")?.strip_suffix(b"\"")
}

fn header_value<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = header.split_at_checked(name.len())?;
    (found.eq_ignore_ascii_case(name) && value.first() == Some(&b':')).then(|| &value[1..])
}
