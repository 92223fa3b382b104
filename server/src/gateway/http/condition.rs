//! `If-Match` and `If-None-Match` (RFC 9110, section 13). Our tags are strong: a version in quotes.
//!
//! A precondition that this server cannot judge is refused, never ignored: a client that sends one relies on it.

use crate::command::{Condition, ErrorCode, Failure, Version};
use crate::limits::VERSION_MAX;
use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};

/// One entity tag of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    /// The version it stands for; `None` for a tag this server never gave.
    version: Option<Version>,
}

/// The value of one of the two headers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    Any,
    List(Vec<Tag>),
}

/// Both headers of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

/// What a read comes to under its preconditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadVerdict {
    /// Send the document.
    Send,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// What a write is to be tried with, one after the other while the version found is among the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteCondition {
    /// One condition decides.
    One(Condition),
    /// Any of these versions will do.
    AnyOf(Vec<Version>),
}

impl Preconditions {
    /// Reads both headers; a list may be spread over several lines.
    pub fn parse(headers: &HeaderMap) -> Result<Self, Failure> {
        Ok(Self { if_match: parse(headers, &IF_MATCH)?, if_none_match: parse(headers, &IF_NONE_MATCH)? })
    }

    /// Refuses any precondition, where a route takes none.
    pub fn require_none(headers: &HeaderMap, what: &'static str) -> Result<(), Failure> {
        if headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH) {
            return Err(Failure::new(
                ErrorCode::BadRequest,
                format!("If-Match and If-None-Match are not taken {what}: leave them out"),
            ));
        }
        Ok(())
    }

    /// Judges a read of a document at `version`.
    pub fn judge_read(&self, version: Version) -> ReadVerdict {
        // If-Match compares strongly: a weak tag never matches. If-None-Match compares weakly.
        if self.if_match.as_ref().is_some_and(|tags| !tags.matches(version, false)) {
            return ReadVerdict::Failed;
        }
        if self.if_none_match.as_ref().is_some_and(|tags| tags.matches(version, true)) {
            return ReadVerdict::NotModified;
        }
        ReadVerdict::Send
    }

    /// What a PUT must be tried with.
    pub fn for_put(&self) -> Result<WriteCondition, Failure> {
        match (&self.if_match, &self.if_none_match) {
            (Some(_), Some(_)) => Err(bad_request("send If-Match or If-None-Match on a write, not both")),
            (None, Some(Tags::Any)) => Ok(WriteCondition::One(Condition::IfAbsent)),
            (None, Some(Tags::List(_))) => {
                Err(bad_request("If-None-Match on a write takes only '*' (create, do not replace)"))
            }
            (tags, None) => Ok(expected(tags.as_ref())),
        }
    }

    /// What a DELETE must be tried with.
    pub fn for_delete(&self) -> Result<WriteCondition, Failure> {
        if self.if_none_match.is_some() {
            return Err(bad_request("If-None-Match is not taken on a DELETE: use If-Match"));
        }
        Ok(expected(self.if_match.as_ref()))
    }
}

impl WriteCondition {
    /// Whether no version at all would do: the caller sent weak or foreign tags only.
    pub fn names_no_version(&self) -> bool {
        matches!(self, WriteCondition::AnyOf(versions) if versions.is_empty())
    }

    /// The condition to begin with.
    pub fn first(&self) -> Condition {
        match self {
            WriteCondition::One(condition) => *condition,
            // A version that is never given out: the condition fails, and names the version found.
            WriteCondition::AnyOf(versions) => {
                Condition::IfVersion(versions.first().copied().unwrap_or(VERSION_MAX + 1))
            }
        }
    }

    /// The condition to try after one failed on `found`, if that version would do too.
    pub fn after(&self, tried: Condition, found: Option<Version>) -> Option<Condition> {
        let (WriteCondition::AnyOf(versions), Some(found)) = (self, found) else { return None };
        let next = Condition::IfVersion(found);
        (next != tried && versions.contains(&found)).then_some(next)
    }
}

fn expected(tags: Option<&Tags>) -> WriteCondition {
    match tags {
        None => WriteCondition::One(Condition::None),
        Some(Tags::Any) => WriteCondition::One(Condition::IfPresent),
        Some(Tags::List(tags)) => {
            WriteCondition::AnyOf(tags.iter().filter(|tag| !tag.weak).filter_map(|tag| tag.version).collect())
        }
    }
}

impl Tags {
    fn matches(&self, version: Version, weakly: bool) -> bool {
        match self {
            Tags::Any => true,
            Tags::List(tags) => tags.iter().any(|tag| (weakly || !tag.weak) && tag.version == Some(version)),
        }
    }
}

fn parse(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Failure> {
    let mut found = None;
    for value in headers.get_all(name) {
        let tags = parse_value(value).ok_or_else(|| {
            bad_request("If-Match and If-None-Match take '*' or entity tags in double quotes, as ETag gave them")
        })?;
        found = match (found, tags) {
            (None, tags) => Some(tags),
            (Some(Tags::List(mut all)), Tags::List(more)) => {
                all.extend(more);
                Some(Tags::List(all))
            }
            _ => return Err(bad_request("'*' stands alone in If-Match and If-None-Match")),
        };
    }
    Ok(found)
}

fn parse_value(value: &HeaderValue) -> Option<Tags> {
    let mut rest = value.as_bytes().trim_ascii();
    if rest == b"*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    while !rest.is_empty() {
        let (weak, quoted) = match rest.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let quoted = quoted.strip_prefix(b"\"")?;
        let end = quoted.iter().position(|byte| *byte == b'"')?;
        let (opaque, after) = quoted.split_at(end);
        tags.push(Tag { weak, version: parse_version(opaque) });
        rest = after.get(1..)?.trim_ascii_start();
        // A list may hold empty elements; what is not a comma cannot follow a tag.
        match rest.first() {
            None => break,
            Some(b',') => rest = rest.trim_ascii_start(),
            Some(_) => return None,
        }
        while let Some(after) = rest.strip_prefix(b",") {
            rest = after.trim_ascii_start();
        }
    }
    (!tags.is_empty()).then_some(Tags::List(tags))
}

/// Exactly the digits that `ETag` would carry: `"05"` is not the tag of version 5.
fn parse_version(opaque: &[u8]) -> Option<Version> {
    let digits = std::str::from_utf8(opaque).ok()?;
    let canonical = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    canonical.then(|| digits.parse().ok()).flatten()
}

fn bad_request(message: &'static str) -> Failure {
    Failure::new(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preconditions(lines: &[(&'static str, &'static str)]) -> Result<Preconditions, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Preconditions::parse(&headers)
    }

    #[test]
    fn reads_follow_strong_and_weak_comparison() {
        use ReadVerdict::{Failed, NotModified, Send};
        let cases: [(&str, &str, ReadVerdict); 13] = [
            ("if-none-match", "\"7\"", NotModified),
            ("if-none-match", "W/\"7\"", NotModified),
            ("if-none-match", "\"6\", W/\"7\"", NotModified),
            ("if-none-match", "\"6\",, \"8\" ,", Send),
            ("if-none-match", "*", NotModified),
            ("if-none-match", "\"07\"", Send),
            ("if-none-match", "\"other, tag\"", Send),
            ("if-match", "\"7\"", Send),
            ("if-match", "W/\"7\"", Failed),
            ("if-match", "\"1\" , \"7\"", Send),
            ("if-match", "*", Send),
            ("if-match", "\"8\"", Failed),
            ("if-match", "\"elsewhere\"", Failed),
        ];
        for (name, value, expected) in cases {
            let found = preconditions(&[(name, value)]).unwrap().judge_read(7);
            assert_eq!(found, expected, "{name}: {value}");
        }
        let both = preconditions(&[("if-none-match", "\"1\""), ("if-none-match", "\"7\"")]).unwrap();
        assert_eq!(both.judge_read(7), NotModified);
    }

    #[test]
    fn malformed_values_are_refused() {
        for value in ["7", "\"7", "\"7\" \"8\"", "", ",", "w/\"7\"", "*, \"7\"", "\"7\" x"] {
            assert!(preconditions(&[("if-match", value)]).is_err(), "{value}");
        }
        assert!(preconditions(&[("if-match", "*"), ("if-match", "\"1\"")]).is_err());
    }

    #[test]
    fn writes_become_conditions() {
        let put = |lines: &[(&'static str, &'static str)]| preconditions(lines).unwrap().for_put().ok();
        assert_eq!(put(&[]), Some(WriteCondition::One(Condition::None)));
        assert_eq!(put(&[("if-match", "*")]), Some(WriteCondition::One(Condition::IfPresent)));
        assert_eq!(put(&[("if-none-match", "*")]), Some(WriteCondition::One(Condition::IfAbsent)));
        assert_eq!(put(&[("if-none-match", "\"3\"")]), None);
        assert_eq!(put(&[("if-match", "\"3\""), ("if-none-match", "*")]), None);
        assert!(preconditions(&[("if-none-match", "*")]).unwrap().for_delete().is_err());

        let several = put(&[("if-match", "\"3\", W/\"4\", \"5\"")]).unwrap();
        assert_eq!(several, WriteCondition::AnyOf(vec![3, 5]));
        assert_eq!(several.first(), Condition::IfVersion(3));
        assert_eq!(several.after(Condition::IfVersion(3), Some(5)), Some(Condition::IfVersion(5)));
        assert_eq!(several.after(Condition::IfVersion(3), Some(4)), None);
        assert_eq!(several.after(Condition::IfVersion(5), Some(5)), None);
        assert_eq!(several.after(Condition::IfVersion(3), None), None);

        let foreign = put(&[("if-match", "\"elsewhere\"")]).unwrap();
        assert_eq!(foreign.first(), Condition::IfVersion(VERSION_MAX + 1));
        assert!(foreign.names_no_version() && !several.names_no_version());
    }
}
