//! A crowd's client over HTTP.

use super::documents::{Entities, document, value_of};
use super::plan::{Action, Form};
use super::{Connection, Reply};
use crate::history::{Answer, Call};
use crate::{HttpClient, Response};
use delta_wire::Condition;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashMap;

const JSON: (&str, &str) = ("content-type", "application/json");

impl Connection for HttpClient {
    fn carry_out(&mut self, entities: &Entities, action: &Action) -> Vec<Reply> {
        match action.form {
            Form::Each => action.calls.iter().map(|(entity, call)| one(self, entities, *entity, *call)).collect(),
            Form::Together => put_many(self, entities, &action.calls),
            Form::Listing => list(self, entities, &action.calls),
        }
    }
}

fn one(client: &mut HttpClient, entities: &Entities, entity: usize, call: Call) -> Reply {
    let path = format!("/entity/{}/{}", entities.schema(entity), entities.key(entity));
    let response = match call {
        Call::Get => client.send("GET", &path, &[], b""),
        Call::Put { value, condition } => {
            let condition = header(condition);
            let headers: Vec<(&str, &str)> = [JSON].into_iter().chain(line(condition.as_ref())).collect();
            client.send("PUT", &path, &headers, document(entity, value).as_bytes())
        }
        Call::Delete { condition } => {
            let condition = header(condition);
            client.send("DELETE", &path, &line(condition.as_ref()).collect::<Vec<_>>(), b"")
        }
    };
    let response = match response {
        Ok(response) => response,
        Err(error) => return loss(&error),
    };
    let answer = match (response.status, call) {
        (200, Call::Get) => Answer::Found { value: value_of(entity, &response.body), version: tag(&response) },
        (200 | 201, Call::Put { .. }) => {
            let body = response.json();
            assert_eq!(number(&body["version"]), tag(&response), "{body}");
            Answer::Written { version: tag(&response), created: Some(response.status == 201) }
        }
        (200, Call::Delete { .. }) => Answer::Deleted { version: number(&response.json()["version"]) },
        (412, Call::Put { .. } | Call::Delete { .. }) => {
            Answer::ConditionFailed { found: response.json()["version"].as_u64() }
        }
        (404, Call::Get | Call::Delete { .. }) => Answer::Absent,
        _ => return refusal(&response.json()["error"], &response.text()),
    };
    Reply::Answer(answer)
}

fn put_many(client: &mut HttpClient, entities: &Entities, calls: &[(usize, Call)]) -> Vec<Reply> {
    let member = |(entity, call): &(usize, Call)| match call {
        Call::Put { value, .. } => format!("\"{}\":{}", entities.key(*entity), document(*entity, *value)),
        other => panic!("{other:?} is no part of a multi-key write"),
    };
    let body = format!("{{{}}}", calls.iter().map(member).collect::<Vec<_>>().join(","));
    let path = format!("/entity/{}", entities.schema(calls[0].0));
    let response = match client.send("PUT", &path, &[JSON], body.as_bytes()) {
        Ok(response) => response,
        Err(error) => return vec![loss(&error); calls.len()],
    };
    let body = response.json();
    let reply = |(entity, _): &(usize, Call)| {
        let key = entities.key(*entity);
        if let Some(version) = body["versions"][&key].as_u64() {
            return Reply::Answer(Answer::Written { version, created: None });
        }
        let errors = body["errors"].as_array().into_iter().flatten();
        let own = errors.into_iter().find(|error| error["key"] == key.as_str());
        refusal(&own.unwrap_or(&body)["error"], &response.text())
    };
    calls.iter().map(reply).collect()
}

fn list(client: &mut HttpClient, entities: &Entities, calls: &[(usize, Call)]) -> Vec<Reply> {
    #[derive(serde::Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        entries: Vec<Entry<'a>>,
        next: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Entry<'a> {
        key: String,
        version: u64,
        #[serde(borrow)]
        document: &'a RawValue,
    }
    let path = format!("/entity/{}?documents=true&limit=1000", entities.schema(calls[0].0));
    let response = match client.send("GET", &path, &[], b"") {
        Ok(response) => response,
        Err(error) => return vec![loss(&error); calls.len()],
    };
    if response.status != 200 {
        return vec![refusal(&response.json()["error"], &response.text()); calls.len()];
    }
    let page: Page<'_> = serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"));
    assert_eq!(page.next, None, "all entities of a schema fit one page");
    let schema = calls[0].0 / entities.of_schema(0).len();
    let found = page.entries.iter().map(|entry| {
        let entity = entities.entity(schema, &entry.key);
        let value = value_of(entity, entry.document.get().as_bytes());
        (entity, Answer::Found { value, version: entry.version })
    });
    replies(calls, found)
}

/// One reply a call of a listing: what was not listed was absent.
pub(super) fn replies(calls: &[(usize, Call)], found: impl Iterator<Item = (usize, Answer)>) -> Vec<Reply> {
    let mut listed = HashMap::new();
    for (entity, answer) in found {
        assert_eq!(listed.insert(entity, answer), None, "entity {entity} was listed twice");
    }
    calls.iter().map(|(entity, _)| Reply::Answer(listed.get(entity).copied().unwrap_or(Answer::Absent))).collect()
}

fn loss(error: &std::io::Error) -> Reply {
    if error.kind() == std::io::ErrorKind::NotConnected { Reply::Unsent } else { Reply::Lost }
}

fn refusal(error: &Value, text: &str) -> Reply {
    match error.as_str() {
        Some("outcome_unknown") => Reply::Answer(Answer::Unknown),
        Some("overloaded" | "unavailable" | "out_of_space") => Reply::Refused,
        _ => panic!("an answer that no client of the crowd may get: {text}"),
    }
}

fn header(condition: Condition) -> Option<(&'static str, String)> {
    match condition {
        Condition::None => None,
        Condition::IfAbsent => Some(("if-none-match", "*".to_owned())),
        Condition::IfPresent => Some(("if-match", "*".to_owned())),
        Condition::IfVersion(version) => Some(("if-match", format!("\"{version}\""))),
    }
}

fn line<'a>(condition: Option<&'a (&'static str, String)>) -> impl Iterator<Item = (&'a str, &'a str)> {
    condition.into_iter().map(|(name, value)| (*name, value.as_str()))
}

fn tag(response: &Response) -> u64 {
    let tag = response.header("etag").and_then(|tag| tag.trim_matches('"').parse().ok());
    tag.unwrap_or_else(|| panic!("no version in {response:?}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no version but {value}"))
}
