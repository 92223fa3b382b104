//! Commands on several keys: cut by owner, carried out there at the same time, put together in the order asked.

use super::{Delivery, Dispatch};
use crate::command::{Command, ErrorCode, Failure, Outcome, Page, PageEntry, PutItem, Ticket};
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::mailbox::Errand;
use crate::runtime::platform::{Doorbell, Platform};
use crate::sabotage::{Sabotage, is_on};
use crate::storage::Storage;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

type Name = Cow<'static, str>;

impl<P: Platform, S: Storage, B: Doorbell> Dispatch<P, S, B> {
    pub(super) async fn multi_get(self: &Rc<Self>, schema: Name, keys: Vec<Name>) -> Outcome {
        let owners: Vec<usize> = keys.iter().map(|key| self.parts.topology.owner_of(&schema, key)).collect();
        let command = |keys| Command::MultiGet { schema: schema.clone(), keys };
        let outcomes = self.scatter(&owners, keys, command).await;
        Outcome::Documents(gather(&owners, outcomes, |outcome| match outcome {
            Outcome::Documents(results) => Ok(results),
            other => Err(other),
        }))
    }

    pub(super) async fn multi_put(self: &Rc<Self>, schema: Name, items: Vec<PutItem<'static>>) -> Outcome {
        let owners: Vec<usize> = items.iter().map(|item| self.parts.topology.owner_of(&schema, &item.key)).collect();
        let command = |items| Command::MultiPut { schema: schema.clone(), items };
        let outcomes = self.scatter(&owners, items, command).await;
        Outcome::WrittenMany(gather(&owners, outcomes, |outcome| match outcome {
            Outcome::WrittenMany(results) => Ok(results),
            other => Err(other),
        }))
    }

    /// A page over all shards: keys first, merged; then the documents of those that made it into the page.
    pub(super) async fn list(
        self: &Rc<Self>,
        schema: Name,
        prefix: Name,
        after: Option<Name>,
        limit: usize,
        documents: bool,
    ) -> Outcome {
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let command = Command::List { schema: schema.clone(), prefix, after, limit, documents: false };
        let mut entries: Vec<PageEntry> = Vec::new();
        let mut more = false;
        // Past the end of a page that one shard cut short, keys of that shard may be missing: nothing beyond is shown.
        let mut complete_to: Option<String> = None;
        for outcome in self.on_every_shard(&command).await {
            match outcome {
                Outcome::Page(page) => {
                    if let Some(next) = page.next {
                        more = true;
                        complete_to = Some(complete_to.map_or(next.clone(), |bound| bound.min(next)));
                    }
                    entries.extend(page.entries);
                }
                other => return other,
            }
        }
        entries.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        if let Some(bound) = &complete_to {
            entries.retain(|entry| entry.key <= *bound);
        }
        more |= entries.len() > limit;
        entries.truncate(limit + usize::from(is_on(Sabotage::CursorSkipsOne)));
        let mut next = if more { entries.last().map(|entry| entry.key.clone()) } else { None };
        if is_on(Sabotage::CursorSkipsOne) {
            entries.truncate(limit);
        }
        if documents && !entries.is_empty() {
            match self.add_documents(schema, &mut entries).await {
                Ok(None) => {}
                Ok(cut_after) => next = cut_after,
                Err(failure) => return failure.into(),
            }
        }
        Outcome::Page(Page { entries, next })
    }

    pub(super) async fn schemas(self: &Rc<Self>) -> Outcome {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for outcome in self.on_every_shard(&Command::Schemas).await {
            match outcome {
                Outcome::Schemas(schemas) => {
                    schemas.into_iter().for_each(|(id, count)| *counts.entry(id).or_default() += count);
                }
                other => return other,
            }
        }
        Outcome::Schemas(counts.into_iter().collect())
    }

    /// Fills documents in. Entities deleted since are left out; a page that grows too large ends early, at the key
    /// returned.
    async fn add_documents(
        self: &Rc<Self>,
        schema: Name,
        entries: &mut Vec<PageEntry>,
    ) -> Result<Option<String>, Failure> {
        let keys: Vec<Name> = entries.iter().map(|entry| Cow::Owned(entry.key.clone())).collect();
        let Outcome::Documents(results) = self.multi_get(schema, keys).await else {
            return Err(Failure::new(ErrorCode::Internal, "documents were asked for, something else came"));
        };
        let mut kept = Vec::with_capacity(entries.len());
        let (mut bytes, mut cut_after) = (0, None);
        for (mut entry, result) in entries.drain(..).zip(results) {
            match result {
                Ok((version, document)) => {
                    bytes += document.body().len();
                    if bytes > PAGE_BYTES_MAX && !kept.is_empty() {
                        cut_after = kept.last().map(|entry: &PageEntry| entry.key.clone());
                        break;
                    }
                    entry.version = version;
                    entry.document = Some(document);
                    kept.push(entry);
                }
                Err(failure) if failure.code == ErrorCode::NotFound => {}
                Err(failure) if failure.code == ErrorCode::Corrupted && self.parts.salvage => {}
                Err(failure) if failure.code == ErrorCode::TooLarge && !kept.is_empty() => {
                    cut_after = kept.last().map(|entry: &PageEntry| entry.key.clone());
                    break;
                }
                Err(failure) => return Err(failure),
            }
        }
        *entries = kept;
        Ok(cut_after)
    }

    /// The same command on every shard, all at once.
    async fn on_every_shard(self: &Rc<Self>, command: &Command<'static>) -> Vec<Outcome> {
        let shards = self.parts.topology.shards();
        self.on_shards((0..shards).map(|shard| (shard, command.clone())).collect()).await
    }

    /// One command a named shard: the others' go out first, this shard's own is carried out while they are under way.
    async fn on_shards(self: &Rc<Self>, commands: Vec<(usize, Command<'static>)>) -> Vec<Outcome> {
        enum Asked {
            Slot(u32),
            Known(Outcome),
        }
        let Delivery { tasks, mailbox, .. } = &*self.parts.delivery;
        let mut asked = Vec::with_capacity(commands.len());
        let mut here = None;
        for (shard, command) in commands {
            let slot = tasks.reserve();
            asked.push(Asked::Slot(slot));
            let position = asked.len() - 1;
            if shard == self.parts.shard {
                here = Some((position, slot, command));
            } else if let Err(failure) = mailbox.request(shard, Errand::Execute(command), Ticket::Task { slot }) {
                tasks.cancel(slot);
                asked[position] = Asked::Known(failure.into());
            }
        }
        if let Some((position, slot, command)) = here
            && let Some(outcome) = self.parts.engine.execute(command, Ticket::Task { slot })
        {
            tasks.cancel(slot);
            asked[position] = Asked::Known(outcome);
        }
        let mut outcomes = Vec::with_capacity(asked.len());
        for one in asked {
            outcomes.push(match one {
                Asked::Slot(slot) => tasks.wait(slot).await.into_outcome(),
                Asked::Known(outcome) => outcome,
            });
        }
        outcomes
    }

    /// Cuts items by owner and runs one command an owner; outcomes are by shard number.
    async fn scatter<T>(
        self: &Rc<Self>,
        owners: &[usize],
        items: Vec<T>,
        command: impl Fn(Vec<T>) -> Command<'static>,
    ) -> BTreeMap<usize, Outcome> {
        let mut parts: BTreeMap<usize, Vec<T>> = BTreeMap::new();
        for (owner, item) in owners.iter().zip(items) {
            parts.entry(*owner).or_default().push(item);
        }
        let shards: Vec<usize> = parts.keys().copied().collect();
        let commands = parts.into_iter().map(|(shard, part)| (shard, command(part))).collect();
        shards.into_iter().zip(self.on_shards(commands).await).collect()
    }
}

/// Puts per-owner results back into the order asked. An owner that failed as a whole fails each of its keys.
fn gather<T>(
    owners: &[usize],
    outcomes: BTreeMap<usize, Outcome>,
    results_of: impl Fn(Outcome) -> Result<Vec<Result<T, Failure>>, Outcome>,
) -> Vec<Result<T, Failure>> {
    let mut by_owner: BTreeMap<usize, Result<std::vec::IntoIter<Result<T, Failure>>, Failure>> = outcomes
        .into_iter()
        .map(|(shard, outcome)| {
            let results = match results_of(outcome) {
                Ok(results) => Ok(results.into_iter()),
                Err(Outcome::Failed(failure)) => Err(failure),
                Err(_) => Err(mismatched()),
            };
            (shard, results)
        })
        .collect();
    let next = |owner: &usize| match by_owner.get_mut(owner) {
        Some(Ok(results)) => results.next().unwrap_or_else(|| Err(mismatched())),
        Some(Err(failure)) => Err(failure.clone()),
        None => Err(mismatched()),
    };
    owners.iter().map(next).collect()
}

fn mismatched() -> Failure {
    Failure::new(ErrorCode::Internal, "a shard answered fewer keys than it was asked for")
}
