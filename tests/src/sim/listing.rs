//! Clients that list: pages to the end of a schema, and the counts of all.

use super::client::{Client, Done, unexpected};
use super::judge::Reply;
use super::model::{Name, ReadTicket, broken};
use super::world::World;
use deltadb::command::{Command, ErrorCode, Failure, Outcome, Version};
use std::borrow::Cow;

/// Pages of one listing after which it is taken not to end.
const PAGES_MAX: usize = 400;

impl Client {
    /// A listing to its end: no key twice, all in order, and every key that was there throughout exactly once.
    pub(super) async fn list(&mut self) -> Done {
        const RULE: &str = "listings are whole";
        let schema = World::schema(self.random.below(self.world.setup.schemas));
        let prefix = ["", "k", "key", "1"][self.random.below(4) as usize];
        let documents = self.random.below(2) == 0;
        let limit = self.random.between(1, 20) as usize;
        let before = self.world.model.borrow().certain_names(&schema);
        let names = self.world.model.borrow().names();
        let mut after: Option<String> = None;
        let mut seen: Vec<(String, Version)> = Vec::new();
        for page_number in 0.. {
            if page_number > PAGES_MAX {
                return broken(RULE, "a listing has no end");
            }
            let tickets: Vec<ReadTicket> =
                names.iter().map(|name| self.world.model.borrow_mut().begin_read(name)).collect();
            let command = Command::List {
                schema: Cow::Owned(schema.to_string()),
                prefix: Cow::Borrowed(prefix),
                after: after.clone().map(Cow::Owned),
                limit,
                documents,
            };
            let outcome = self.call(command).await;
            self.tell(|| format!("list {schema} '{prefix}' after {after:?} limit {limit} -> {}", Reply(&outcome)));
            let page = match outcome {
                Outcome::Page(page) => page,
                Outcome::Failed(failure) if failure.code == ErrorCode::Corrupted => {
                    return self.corrupted_page(&schema, prefix, &tickets, &failure);
                }
                Outcome::Failed(failure) => return self.failed_read(&failure),
                other => return unexpected(&other),
            };
            if page.entries.len() > limit {
                return broken(RULE, format!("a page of {limit} has {} entries", page.entries.len()));
            }
            for entry in page.entries {
                let fits = entry.key.starts_with(prefix) && after.as_ref().is_none_or(|after| entry.key > *after);
                if !fits || seen.last().is_some_and(|(last, _)| *last >= entry.key) {
                    return broken(RULE, format!("'{}' is out of place", entry.key));
                }
                let name: Name = (schema.clone(), entry.key.as_str().into());
                let ticket = tickets.iter().find(|ticket| ticket.name == name);
                if let (Some(ticket), Some(document)) = (ticket, entry.document) {
                    self.read(ticket, Ok((entry.version, document)))?;
                } else if let Some(ticket) = ticket {
                    if documents {
                        return broken(RULE, format!("'{}' comes without its document", entry.key));
                    }
                    let durable = self.server.durable_version(&ticket.name);
                    self.world.model.borrow().judge_shown(ticket, entry.version, durable)?;
                }
                seen.push((entry.key, entry.version));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let now = self.world.model.borrow().certain_names(&schema);
        let throughout = before.iter().filter(|(key, version)| now.get(*key) == Some(*version));
        for (key, version) in throughout.filter(|(key, _)| key.starts_with(prefix)) {
            if !seen.iter().any(|(listed, at)| **listed == **key && at == version) {
                return broken(RULE, format!("'{key}' was there at version {version} all the time and is not listed"));
            }
        }
        Ok(())
    }

    /// A page with documents ends at one that rotted.
    fn corrupted_page(&self, schema: &str, prefix: &str, tickets: &[ReadTicket], failure: &Failure) -> Done {
        let rotten = self.world.rotten.borrow();
        let may_be = |ticket: &ReadTicket| {
            let listed = *ticket.name.0 == *schema && ticket.name.1.starts_with(prefix);
            listed && rotten.get(&ticket.name).is_some_and(|version| ticket.may_show(*version))
        };
        match tickets.iter().any(may_be) {
            true => Ok(()),
            false => broken("damage does not spread", format!("a page of {schema} without rot: {}", failure.message)),
        }
    }

    pub(super) async fn schemas(&mut self) -> Done {
        let (before, certain_before) = self.world.model.borrow().counts();
        let began = self.world.model.borrow().now();
        let outcome = self.call(Command::Schemas).await;
        let Outcome::Schemas(schemas) = outcome else {
            return match outcome {
                Outcome::Failed(failure) => self.failed_read(&failure),
                other => unexpected(&other),
            };
        };
        // Only comparable when nothing happened meanwhile.
        let model = self.world.model.borrow();
        if certain_before && model.now() == began {
            let counted: Vec<(String, u64)> = before.iter().map(|(id, count)| (id.to_string(), *count)).collect();
            if counted != schemas {
                return broken("listings are whole", format!("schemas are {schemas:?} and should be {counted:?}"));
            }
        }
        Ok(())
    }
}
