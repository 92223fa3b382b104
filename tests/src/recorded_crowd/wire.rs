//! A crowd's client over the wire protocol.

use super::documents::{Entities, document, value_of};
use super::http::replies;
use super::plan::{Action, Form};
use super::{Connection, Reply};
use crate::TestServer;
use crate::history::{Answer, Call};
use delta_wire::client::{Client, ClientError, ClientOptions, ListQuery, Reconnect};
use delta_wire::{self as protocol, ErrorCode, Request, ServerError, Stored, Written};

/// A client that never tries again, so that every call is carried out at most once and its loss is seen.
pub fn connect(server: &TestServer, shard_aware: bool) -> Client {
    let options = ClientOptions { shard_aware, reconnect: Reconnect::never(), ..server.wire_options() };
    Client::connect(options).expect("the server welcomes the client")
}

impl Connection for Client {
    fn carry_out(&mut self, entities: &Entities, action: &Action) -> Vec<Reply> {
        match (action.form, action.calls[0].1) {
            (Form::Each, _) => each(self, entities, &action.calls),
            (Form::Together, Call::Get) => get_many(self, entities, &action.calls),
            (Form::Together, _) => put_many(self, entities, &action.calls),
            (Form::Listing, _) => list(self, entities, &action.calls),
        }
    }
}

fn each(client: &mut Client, entities: &Entities, calls: &[(usize, Call)]) -> Vec<Reply> {
    let names: Vec<(&str, String)> = calls.iter().map(|(own, _)| (entities.schema(*own), entities.key(*own))).collect();
    let text = |(entity, call): &(usize, Call)| match call {
        Call::Put { value, .. } => document(*entity, *value),
        _ => String::new(),
    };
    let documents: Vec<String> = calls.iter().map(text).collect();
    let mut pipeline = client.pipeline();
    for (place, (_, call)) in calls.iter().enumerate() {
        let (schema, key) = (names[place].0, names[place].1.as_str());
        match *call {
            Call::Get => pipeline.get(schema, key),
            Call::Put { condition, .. } => pipeline.put(schema, key, documents[place].as_bytes(), condition),
            Call::Delete { condition } => pipeline.delete(schema, key, condition),
        };
    }
    let results = pipeline.run();
    calls.iter().zip(results).map(|((entity, call), result)| judge(*entity, *call, result)).collect()
}

fn judge(entity: usize, call: Call, result: Result<protocol::Reply, ClientError>) -> Reply {
    let reply = match result {
        Ok(reply) => reply,
        Err(error) => return failure(call, error),
    };
    Reply::Answer(match (reply, call) {
        (protocol::Reply::Document(stored), Call::Get) => found(entity, &stored),
        (protocol::Reply::Written(written), Call::Put { .. }) => done(written),
        (protocol::Reply::Deleted { version }, Call::Delete { .. }) => Answer::Deleted { version },
        (reply, call) => panic!("{reply:?} does not answer {call:?}"),
    })
}

fn get_many(client: &mut Client, entities: &Entities, calls: &[(usize, Call)]) -> Vec<Reply> {
    let keys: Vec<String> = calls.iter().map(|(entity, _)| entities.key(*entity)).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    match client.multi_get(entities.schema(calls[0].0), &keys) {
        Ok(results) => {
            let reply = |((entity, call), result): (&(usize, Call), Result<Stored, ServerError>)| match result {
                Ok(stored) => Reply::Answer(found(*entity, &stored)),
                Err(error) => failure(*call, error.into()),
            };
            calls.iter().zip(results).map(reply).collect()
        }
        Err(error) => calls.iter().map(|(_, call)| failure(*call, error.clone())).collect(),
    }
}

fn put_many(client: &mut Client, entities: &Entities, calls: &[(usize, Call)]) -> Vec<Reply> {
    let item = |(entity, call): &(usize, Call)| match call {
        Call::Put { value, .. } => (entities.key(*entity), document(*entity, *value)),
        other => panic!("{other:?} is no part of a multi-key write"),
    };
    let items: Vec<(String, String)> = calls.iter().map(item).collect();
    let items: Vec<(&str, &[u8])> = items.iter().map(|(key, text)| (key.as_str(), text.as_bytes())).collect();
    let request = Request::MultiPut { schema: entities.schema(calls[0].0), items: &items };
    match client.call(&request) {
        Ok(protocol::Reply::WrittenMany(results)) => {
            let reply = |((_, call), result): (&(usize, Call), Result<Written, ServerError>)| match result {
                Ok(written) => Reply::Answer(done(written)),
                Err(error) => failure(*call, error.into()),
            };
            calls.iter().zip(results).map(reply).collect()
        }
        Ok(other) => panic!("{other:?} does not answer a multi-key write"),
        Err(error) => calls.iter().map(|(_, call)| failure(*call, error.clone())).collect(),
    }
}

fn list(client: &mut Client, entities: &Entities, calls: &[(usize, Call)]) -> Vec<Reply> {
    let schema = entities.schema(calls[0].0);
    let page = match client.list(&ListQuery { schema, documents: true, limit: 1000, ..ListQuery::default() }) {
        Ok(page) => page,
        Err(error) => return calls.iter().map(|(_, call)| failure(*call, error.clone())).collect(),
    };
    assert_eq!(page.next, None, "all entities of a schema fit one page");
    let place = calls[0].0 / entities.of_schema(0).len();
    let answers = page.entries.iter().map(|entry| {
        let entity = entities.entity(place, &entry.key);
        let content = entry.content.as_deref().expect("documents were asked for");
        (entity, found(entity, &Stored { version: entry.version, content: content.to_vec() }))
    });
    replies(calls, answers)
}

fn found(entity: usize, stored: &Stored) -> Answer {
    Answer::Found { value: value_of(entity, &stored.content), version: stored.version }
}

fn done(written: Written) -> Answer {
    Answer::Written { version: written.version, created: Some(written.created) }
}

fn failure(call: Call, error: ClientError) -> Reply {
    match error {
        ClientError::Server(error) => match error.code {
            ErrorCode::NotFound => Reply::Answer(Answer::Absent),
            ErrorCode::PreconditionFailed => Reply::Answer(Answer::ConditionFailed { found: error.version }),
            ErrorCode::Overloaded | ErrorCode::Unavailable | ErrorCode::OutOfSpace => Reply::Refused,
            _ => panic!("an answer to {call:?} that no client of the crowd may get: {error}"),
        },
        // The client says the same of a lost reply and of a server that does not know.
        ClientError::OutcomeUnknown { .. } => Reply::Lost,
        ClientError::Connection { .. } => Reply::Unsent,
        error => panic!("{call:?} came to {error}"),
    }
}
