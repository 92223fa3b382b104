//! Templates and data keys: changed on shard 0 only, durable first, then known to every shard, then answered.

use super::Dispatch;
use crate::command::{Command, ErrorCode, Failure, Outcome};
use crate::crypto::keyring::{DataKeyId, Keyring};
use crate::mailbox::{Answer, Errand};
use crate::runtime::platform::{Clock, Doorbell, Platform};
use crate::storage::Storage;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The shard on which templates and data keys are changed, so that changes come one after the other.
const ADMIN_SHARD: usize = 0;
/// How often, and how far apart, a shard without room in its mailbox is asked again.
const INSIST_TIMES: usize = 200;
const INSIST_PAUSE: Duration = Duration::from_millis(10);

/// What a custodian's operation comes to.
pub type KeyringFuture = Pin<Box<dyn Future<Output = Result<Arc<Keyring>, String>>>>;

/// Keeps the keyring file of the store.
pub trait KeyCustodian {
    /// Makes a new data key the active one; the keyring is durable when this resolves.
    fn rotate(&self) -> KeyringFuture;
    /// Drops retiring keys that nobody names any more.
    fn drop_unused(&self, in_use: BTreeSet<DataKeyId>) -> KeyringFuture;
    /// Whether there are retiring keys.
    fn has_retiring_keys(&self) -> bool;
}

impl<P: Platform, S: Storage, B: Doorbell> Dispatch<P, S, B> {
    pub(super) async fn administer(self: &Rc<Self>, command: Command<'static>) -> Outcome {
        let templates = &self.parts.templates;
        match command {
            Command::SchemaGet { id } => match templates.get(&self.parts.platform, &id).await {
                Ok(Some(text)) => Outcome::Template(text),
                Ok(None) => no_template(&id),
                Err(failure) => failure.into(),
            },
            Command::SchemaList => Outcome::Templates(templates.ids()),
            _ if self.parts.salvage => {
                let message = "nothing is changed under --salvage; restart without it to write";
                Failure::new(ErrorCode::Unavailable, message).into()
            }
            command if self.parts.shard != ADMIN_SHARD => self.execute_on(ADMIN_SHARD, command).await,
            Command::SchemaPut { id, template } => match templates.put(&self.parts.platform, &id, &template).await {
                Ok(created) => self.everywhere_refreshed(Outcome::TemplateChanged { created }).await,
                Err(failure) => failure.into(),
            },
            Command::SchemaDelete { id } => match templates.delete(&self.parts.platform, &id).await {
                Ok(()) => self.everywhere_refreshed(Outcome::TemplateChanged { created: false }).await,
                Err(failure) => failure.into(),
            },
            Command::RotateKey => self.rotate_key().await,
            _ => Failure::new(ErrorCode::Internal, "a command took the way of an administrative one").into(),
        }
    }

    /// Answers only after every shard has seen the newest templates.
    async fn everywhere_refreshed(self: &Rc<Self>, outcome: Outcome) -> Outcome {
        self.checker.borrow_mut().refresh();
        let mut outcome = outcome;
        for shard in (0..self.parts.topology.shards()).filter(|shard| *shard != self.parts.shard) {
            let ask = || self.ask(shard, Errand::RefreshTemplates);
            if let Answer::Outcome(Outcome::Failed(failure)) = self.insist(ask).await {
                let message =
                    format!("the template is stored, but shard {shard} has not taken it up yet: {}", failure.message);
                outcome = Failure::new(ErrorCode::OutcomeUnknown, message).into();
            }
        }
        outcome
    }

    /// Asks again for a while when the mailbox has no room: what is durable must reach every shard.
    async fn insist<F: Future<Output = Answer>>(&self, ask: impl Fn() -> F) -> Answer {
        for _ in 0..INSIST_TIMES {
            match ask().await {
                Answer::Outcome(Outcome::Failed(failure)) if failure.code == ErrorCode::Overloaded => {
                    self.parts.platform.clock().sleep(INSIST_PAUSE).await;
                }
                answer => return answer,
            }
        }
        ask().await
    }

    async fn rotate_key(self: &Rc<Self>) -> Outcome {
        let Some(custodian) = self.parts.custodian.clone() else {
            return Failure::new(ErrorCode::Internal, "this shard keeps no keys").into();
        };
        if self.rotating.replace(true) {
            return Failure::new(ErrorCode::Overloaded, "a key rotation is under way: retry when it is done").into();
        }
        let outcome = match custodian.rotate().await {
            Ok(keyring) => self.adopted_everywhere(keyring).await,
            Err(reason) => {
                Failure::new(ErrorCode::Unavailable, format!("the data key was not rotated: {reason}")).into()
            }
        };
        self.rotating.set(false);
        outcome
    }

    async fn adopted_everywhere(self: &Rc<Self>, keyring: Arc<Keyring>) -> Outcome {
        let mut outcome = Outcome::KeyRotated { key_id: keyring.active().id().to_string() };
        for shard in 0..self.parts.topology.shards() {
            let answer = if shard == self.parts.shard {
                self.adopt_keyring(keyring.clone()).await
            } else {
                self.insist(|| self.ask(shard, Errand::AdoptKeyring(keyring.clone()))).await
            };
            if let Answer::Outcome(Outcome::Failed(failure)) = answer {
                let message = format!(
                    "the new data key is durable, but shard {shard} still writes with the old one: {}; \
                     a restart or another rotation completes it",
                    failure.message
                );
                outcome = Failure::new(ErrorCode::Unavailable, message).into();
            }
        }
        outcome
    }

    pub(super) async fn adopt_keyring(self: &Rc<Self>, keyring: Arc<Keyring>) -> Answer {
        match self.parts.engine.storage().adopt_keyring(keyring).await {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Outcome(Failure::new(ErrorCode::Unavailable, error.to_string()).into()),
        }
    }

    /// Drops data keys that no shard's files name any more. Called now and then on the admin shard. Not in a salvage:
    /// what could not be opened may name them too.
    pub async fn drop_unused_keys(self: &Rc<Self>) {
        if self.parts.salvage {
            return;
        }
        let Some(custodian) = self.parts.custodian.clone() else { return };
        if !custodian.has_retiring_keys() || self.rotating.replace(true) {
            return;
        }
        if let Some(in_use) = self.key_ids_in_use().await
            && let Err(reason) = custodian.drop_unused(in_use).await
        {
            tracing::warn!("retiring data keys were not dropped: {reason}; tried again later");
        }
        self.rotating.set(false);
    }

    async fn key_ids_in_use(self: &Rc<Self>) -> Option<BTreeSet<DataKeyId>> {
        let mut in_use: BTreeSet<DataKeyId> = self.parts.engine.storage().key_ids_in_use().into_iter().collect();
        for shard in (0..self.parts.topology.shards()).filter(|shard| *shard != self.parts.shard) {
            match self.ask(shard, Errand::KeyIdsInUse).await {
                Answer::KeyIds(ids) => in_use.extend(ids),
                _ => return None,
            }
        }
        Some(in_use)
    }

    pub(super) fn stats(&self) -> String {
        self.keep_house();
        crate::metrics::stats_json(&self.parts.metrics, serde_json::Value::Null)
    }
}

fn no_template(id: &str) -> Outcome {
    Failure::new(ErrorCode::NotFound, format!("there is no template for schema '{id}'")).into()
}
