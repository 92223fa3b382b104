//! One shard's view of the templates, and the check that every write passes.
//!
//! A check costs one atomic load and one probe of a local table; the shared set is asked, under its lock, only for a
//! schema this shard has not met since the last change. The view belongs to one thread.

use super::checker::Checker;
use super::template::Template;
use super::templates::{TemplateState, Templates};
use crate::command::Failure;
use crate::limits::TEMPLATES_MAX;
use crate::metrics::ShardMetrics;
use hashbrown::HashTable;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Why a document was not found good.
#[derive(Debug)]
pub enum CheckError {
    /// It must be refused.
    Failed(Failure),
    /// The schema's template has to be loaded first: await `Templates::load`, then check again.
    NeedsLoad,
}

impl From<Failure> for CheckError {
    fn from(failure: Failure) -> Self {
        CheckError::Failed(failure)
    }
}

/// What this shard knows of a schema.
enum Known {
    /// There is no template.
    Free,
    Loaded(Arc<Template>),
    Damaged(Arc<str>),
}

/// A shard's view, with its parser.
pub struct ShardTemplates {
    shared: Arc<Templates>,
    /// The epoch that `known` was copied in.
    epoch: u64,
    known: HashTable<(Box<str>, Known)>,
    checker: Checker,
    checked: u64,
    refused: u64,
}

/// Schemas remembered between changes. Any name can be asked for, so the table needs a bound of its own.
const KNOWN_MAX: usize = 2 * TEMPLATES_MAX;

impl ShardTemplates {
    /// A view that knows nothing yet.
    pub fn new(shared: Arc<Templates>) -> Self {
        let epoch = shared.epoch();
        Self { shared, epoch, known: HashTable::new(), checker: Checker::default(), checked: 0, refused: 0 }
    }

    /// The shared set.
    pub fn shared(&self) -> &Arc<Templates> {
        &self.shared
    }

    /// Whether a document may be stored under a schema: JSON always, and valid when the schema has a template.
    pub fn check(&mut self, schema: &str, document: &[u8]) -> Result<(), CheckError> {
        self.refresh();
        let hash = xxh3_64_with_seed(schema.as_bytes(), self.shared.hash_seed);
        if self.known.find(hash, |(id, _)| **id == *schema).is_none() {
            self.learn(hash, schema)?;
        }
        let result = match self.known.find(hash, |(id, _)| **id == *schema).map(|(_, known)| known) {
            None | Some(Known::Free) => self.checker.check(None, document),
            Some(Known::Loaded(template)) => self.checker.check(Some(template), document),
            Some(Known::Damaged(reason)) => Err(self.shared.damaged_failure(schema, reason)),
        };
        self.checked += 1;
        self.refused += u64::from(result.is_err());
        Ok(result?)
    }

    /// Only whether it is JSON; for documents that no template applies to.
    pub fn check_json(&mut self, document: &[u8]) -> Result<(), Failure> {
        self.checker.check(None, document)
    }

    /// Takes notice of changes, and returns the epoch that every later check of this shard is at least as new as. A
    /// change is acknowledged once each shard has answered with the epoch read after it, or a later one.
    pub fn refresh(&mut self) -> u64 {
        let epoch = self.shared.epoch();
        if epoch != self.epoch {
            self.known.clear();
            self.epoch = epoch;
        }
        epoch
    }

    /// Carries checks since the last report over to the shard's figures.
    pub fn report(&mut self, metrics: &ShardMetrics) {
        metrics.validations.add(std::mem::take(&mut self.checked));
        metrics.validation_failures.add(std::mem::take(&mut self.refused));
    }

    /// How many schemas this view remembers.
    pub fn known_schemas(&self) -> usize {
        self.known.len()
    }

    #[cold]
    fn learn(&mut self, hash: u64, schema: &str) -> Result<(), CheckError> {
        let known = match self.shared.state(schema) {
            TemplateState::Absent => Known::Free,
            TemplateState::Unloaded => return Err(CheckError::NeedsLoad),
            TemplateState::Loaded(template) => Known::Loaded(template),
            TemplateState::Damaged(reason) => Known::Damaged(reason),
        };
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let seed = self.shared.hash_seed;
        self.known.insert_unique(hash, (schema.into(), known), |(id, _)| xxh3_64_with_seed(id.as_bytes(), seed));
        Ok(())
    }
}
