//! Parser, index and template brought together: the whole check of one document, with buffers that are reused.

use super::json::JsonParser;
use super::members::Members;
use super::template::Template;
use crate::command::Failure;

/// Checks documents one after the other; one a shard.
#[derive(Default)]
pub struct Checker {
    parser: JsonParser,
    members: Members,
}

impl Checker {
    /// Whether a document is JSON and, when there is a template, valid.
    pub fn check(&mut self, template: Option<&Template>, document: &[u8]) -> Result<(), Failure> {
        let members = &mut self.members;
        match template {
            None => Ok(self.parser.check(document)?),
            Some(template) => self.parser.parse(document, |nodes| template.check(nodes, members))?,
        }
    }
}
