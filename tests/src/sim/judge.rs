//! Answers in words, and which failures a write may come to.

use super::client::{Client, code_words};
use super::model::{Broken, ReadTicket, WriteId, broken};
use deltadb::command::{Condition, ErrorCode, Failure, Outcome};
use std::fmt;

/// An outcome for the history: what it was and at which versions, without contents.
pub(super) struct Reply<'a>(pub(super) &'a Outcome);

impl fmt::Display for Reply<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::Failed(failure) => write!(formatter, "{:?} ({})", failure.code, failure.message),
            Outcome::Page(page) => {
                let keys: Vec<_> = page.entries.iter().map(|entry| (&entry.key, entry.version)).collect();
                write!(formatter, "{keys:?} next {:?}", page.next)
            }
            Outcome::WrittenMany(results) => {
                let each: Vec<_> = results.iter().map(|one| one.as_ref().map_err(|failure| failure.code)).collect();
                write!(formatter, "{each:?}")
            }
            Outcome::Documents(results) => {
                let version = |one: &Result<(u64, _), Failure>| match one {
                    Ok((version, _)) => Ok(*version),
                    Err(failure) => Err(failure.code),
                };
                write!(formatter, "{:?}", results.iter().map(version).collect::<Vec<_>>())
            }
            other => write!(formatter, "{other:?}"),
        }
    }
}

/// What kind of answer it is, for the coverage table.
pub(super) fn reply_code(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) => code_words(failure.code),
        Outcome::Written { .. } => "written".to_owned(),
        Outcome::Deleted { .. } => "deleted".to_owned(),
        Outcome::Document { .. } => "document".to_owned(),
        Outcome::Documents(_) => "documents".to_owned(),
        Outcome::WrittenMany(_) => "written many".to_owned(),
        Outcome::Page(_) => "page".to_owned(),
        _ => "other".to_owned(),
    }
}

/// A write was not acknowledged: the reason must be one, and the model learns what may come of it.
pub(super) fn judge_failed_write(
    client: &Client,
    id: WriteId,
    ticket: &ReadTicket,
    failure: &Failure,
    condition: Condition,
) -> Result<(), Broken> {
    let licence = client.world.licence.get();
    let mut model = client.world.model.borrow_mut();
    let durable = client.server.durable_version(&ticket.name);
    let allowed = match failure.code {
        ErrorCode::OutcomeUnknown if failure.message.contains("has not confirmed it within") => {
            client.world.hit("stalls: writes called unknown");
            model.leave_late(id);
            licence.stalls
        }
        ErrorCode::OutcomeUnknown => {
            model.leave_open(id);
            licence.writes
        }
        ErrorCode::PreconditionFailed => {
            model.refuse(id)?;
            match failure.version {
                Some(found) => {
                    model.judge_named(ticket, found)?;
                    model.judge_shown(ticket, found, durable)?;
                    match condition {
                        Condition::IfAbsent => true,
                        Condition::IfVersion(wanted) => wanted != found,
                        Condition::None | Condition::IfPresent => false,
                    }
                }
                None => {
                    model.judge_absent(ticket)?;
                    matches!(condition, Condition::IfVersion(_) | Condition::IfPresent)
                }
            }
        }
        ErrorCode::NotFound => {
            model.refuse(id)?;
            model.judge_absent(ticket)?;
            true
        }
        ErrorCode::OutOfSpace => {
            model.refuse(id)?;
            licence.space
        }
        ErrorCode::Unavailable => {
            model.refuse(id)?;
            licence.excuses_writes()
        }
        ErrorCode::Overloaded => {
            model.refuse(id)?;
            client.world.excuses_overload(failure)
        }
        ErrorCode::TemplateDamaged => {
            model.refuse(id)?;
            licence.reads
        }
        _ => {
            model.refuse(id)?;
            false
        }
    };
    if allowed {
        return Ok(());
    }
    let detail = format!("a write on {:?} failed: {:?} {}", ticket.name, failure.code, failure.message);
    broken("nothing fails without a reason", detail)
}
