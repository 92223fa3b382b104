//! Names and parameters as they stand in a URL: percent-decoding, UTF-8, and refusal of what is not known.

use crate::command::{ErrorCode, Failure, check_entity_key, check_schema_id};
use crate::limits::{ENTITY_KEY_BYTES_MAX, PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// A schema id from a path segment.
pub fn schema_id(segment: &str) -> Result<Cow<'_, str>, Failure> {
    let id = decode(segment)?;
    check_schema_id(&id)?;
    Ok(id)
}

/// An entity key from a path segment.
pub fn entity_key(segment: &str) -> Result<Cow<'_, str>, Failure> {
    let key = decode(segment)?;
    check_entity_key(&key)?;
    Ok(key)
}

/// Percent-decoding that refuses what it cannot decode, instead of passing it through.
pub fn decode(text: &str) -> Result<Cow<'_, str>, Failure> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut rest = text.as_bytes();
    while let Some(position) = rest.iter().position(|byte| *byte == b'%') {
        let digits = rest.get(position + 1..position + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(bad_request("the URL holds a '%' that no two hexadecimal digits follow; send '%25' for '%'"));
        }
        rest = rest.get(position + 3..).unwrap_or_default();
    }
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| bad_request("the URL holds percent-encoded bytes that are not UTF-8"))
}

/// Query parameters of every route; each route says which of them it takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query<'a> {
    pub key: Option<Cow<'a, str>>,
    pub prefix: Option<Cow<'a, str>>,
    pub after: Option<Cow<'a, str>>,
    pub limit: Option<Cow<'a, str>>,
    pub documents: Option<Cow<'a, str>>,
    pub counts: Option<Cow<'a, str>>,
}

impl<'a> Query<'a> {
    /// Parses `name=value&…`, form-encoded. Unknown and repeated parameters are refused by name.
    pub fn parse(text: Option<&'a str>, taken: &[&str]) -> Result<Self, Failure> {
        let mut query = Self::default();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode_form(name)?;
            if !taken.contains(&name.as_ref()) {
                let taken = if taken.is_empty() { "none".to_owned() } else { taken.join(", ") };
                return Err(bad_request(format!(
                    "the query parameter '{}' is not known here; known: {taken}",
                    shortened(&name)
                )));
            }
            let Some(place) = query.place(&name) else { continue };
            if place.replace(decode_form(value)?).is_some() {
                return Err(bad_request(format!("the query parameter '{name}' is given twice")));
            }
        }
        Ok(query)
    }

    fn place(&mut self, name: &str) -> Option<&mut Option<Cow<'a, str>>> {
        match name {
            "key" => Some(&mut self.key),
            "prefix" => Some(&mut self.prefix),
            "after" => Some(&mut self.after),
            "limit" => Some(&mut self.limit),
            "documents" => Some(&mut self.documents),
            "counts" => Some(&mut self.counts),
            _ => None,
        }
    }

    /// `documents`, false unless given.
    pub fn wants_documents(&self) -> Result<bool, Failure> {
        flag("documents", self.documents.as_deref())
    }

    /// `counts`, false unless given.
    pub fn wants_counts(&self) -> Result<bool, Failure> {
        flag("counts", self.counts.as_deref())
    }

    /// `limit` of a page.
    pub fn page_entries(&self) -> Result<usize, Failure> {
        match self.entries()? {
            None => Ok(PAGE_ENTRIES_DEFAULT),
            Some(limit) if limit <= PAGE_ENTRIES_MAX => Ok(limit),
            Some(_) => Err(bad_request(format!(
                "'limit' is at most {PAGE_ENTRIES_MAX}: page with 'after', or send 'Accept: application/x-ndjson'"
            ))),
        }
    }

    /// `limit` as given.
    pub fn entries(&self) -> Result<Option<usize>, Failure> {
        let Some(text) = self.limit.as_deref() else { return Ok(None) };
        match text.parse() {
            Ok(limit) if limit > 0 => Ok(Some(limit)),
            _ => Err(bad_request("'limit' is not a positive number")),
        }
    }

    /// `prefix` and `after`, no longer than a key can be.
    pub fn range(&self) -> Result<(String, Option<String>), Failure> {
        for (name, value) in [("prefix", &self.prefix), ("after", &self.after)] {
            if value.as_ref().is_some_and(|value| value.len() > ENTITY_KEY_BYTES_MAX) {
                return Err(bad_request(format!(
                    "'{name}' is longer than a key can be ({ENTITY_KEY_BYTES_MAX} bytes)"
                )));
            }
        }
        let owned = |value: &Option<Cow<'a, str>>| value.as_ref().map(|value| value.clone().into_owned());
        Ok((owned(&self.prefix).unwrap_or_default(), owned(&self.after)))
    }
}

fn decode_form(text: &str) -> Result<Cow<'_, str>, Failure> {
    if !text.contains('+') {
        return decode(text);
    }
    let spaced = text.replace('+', " ");
    Ok(Cow::Owned(decode(&spaced)?.into_owned()))
}

fn flag(name: &'static str, value: Option<&str>) -> Result<bool, Failure> {
    match value {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(_) => Err(bad_request(format!("'{name}' is neither true nor false"))),
    }
}

/// So much of a name as an error message should repeat.
fn shortened(name: &str) -> String {
    name.chars().take(32).collect()
}

fn bad_request(message: impl Into<Cow<'static, str>>) -> Failure {
    Failure::new(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_decode_to_names_or_are_refused() {
        let cases: [(&str, Result<&str, ErrorCode>); 10] = [
            ("plain", Ok("plain")),
            ("a%20b+c", Ok("a b+c")),
            ("%E2%82%AC", Ok("€")),
            ("a%2Fb", Err(ErrorCode::InvalidName)),
            ("a%5Cb", Err(ErrorCode::InvalidName)),
            ("..", Err(ErrorCode::InvalidName)),
            ("%2e%2E", Err(ErrorCode::InvalidName)),
            ("%FF", Err(ErrorCode::BadRequest)),
            ("%4", Err(ErrorCode::BadRequest)),
            ("", Err(ErrorCode::InvalidName)),
        ];
        for (segment, expected) in cases {
            let found = entity_key(segment);
            assert_eq!(found.as_deref().map_err(|failure| failure.code), expected, "{segment}");
        }
    }

    #[test]
    fn queries_parse_or_name_what_is_wrong() {
        let query = Query::parse(Some("key=a%26b+c&documents"), &["key", "documents"]).unwrap();
        assert_eq!(query.key.as_deref(), Some("a&b c"));
        assert!(query.wants_documents().unwrap());
        let message = |text| Query::parse(Some(text), &["key"]).unwrap_err().message.into_owned();
        assert!(message("limit=3").contains("'limit'"));
        assert!(message("key=1&key=2").contains("twice"));
        assert!(message("key=%").contains("%25"));
        for (limit, expected) in [("1", Some(1)), ("1000", Some(1000)), ("1001", None), ("0", None), ("-1", None)] {
            let query = Query { limit: Some(limit.into()), ..Query::default() };
            assert_eq!(query.page_entries().ok(), expected, "{limit}");
        }
    }
}
