//! What those who flood ask for, without end and without reading a reply until told to.
//!
//! The requests of one flood are made once and shared by all its members: each begins at another place.

use super::manners::http;
use crate::filler;
use delta_wire::encode::Scratch;
use delta_wire::{Condition, Request};
use std::sync::Arc;

/// The schema that floods ask for.
pub const FLOOD_SCHEMA: &str = "crowd";

/// A kind of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Reads of documents, more of them than a small cache holds.
    Reads,
    /// Small writes.
    Writes,
    /// Writes nearly as large as a body may be.
    LargeWrites,
}

impl Flood {
    /// Requests of each member.
    pub fn requests(self) -> usize {
        match self {
            Flood::Reads => 400,
            Flood::Writes => 1500,
            Flood::LargeWrites => 10,
        }
    }

    /// Documents that they are for.
    pub fn documents(self) -> usize {
        match self {
            Flood::Reads => 2500,
            Flood::Writes => 2000,
            Flood::LargeWrites => 12,
        }
    }

    /// Bytes between the quotes of each document.
    pub fn document_bytes(self) -> usize {
        match self {
            Flood::Reads => 15_000,
            Flood::Writes => 200,
            Flood::LargeWrites => 900_000,
        }
    }

    /// The key of one of the documents.
    pub fn key(self, number: usize) -> String {
        format!("{self:?}{number}").to_lowercase()
    }

    /// What every document of this flood is.
    pub fn document(self) -> String {
        format!("\"{}\"", filler(self.document_bytes(), 1))
    }

    /// Every request of this flood, as one protocol has it: a reply is owed for each.
    pub(super) fn words(self, is_wire: bool) -> Vec<Arc<[u8]>> {
        let document = self.document();
        let numbers = 0..self.documents();
        numbers.map(|number| self.request(is_wire, number, &document).into()).collect()
    }

    fn request(self, is_wire: bool, number: usize, document: &str) -> Vec<u8> {
        let key = self.key(number);
        let key = key.as_str();
        if is_wire {
            let request = match self {
                Flood::Reads => Request::Get { schema: FLOOD_SCHEMA, key },
                Flood::Writes | Flood::LargeWrites => {
                    let (document, condition) = (document.as_bytes(), Condition::None);
                    Request::Put { schema: FLOOD_SCHEMA, key, document, condition }
                }
            };
            let mut frame = Vec::new();
            // The numbers before are those of what a member says first.
            Scratch::new().request(&mut frame, 10 + number as u64, &request);
            return frame;
        }
        match self {
            Flood::Reads => http(&format!("GET /entity/{FLOOD_SCHEMA}/{key}"), ""),
            Flood::Writes | Flood::LargeWrites => {
                let headers = format!("content-type: application/json\r\ncontent-length: {}\r\n", document.len());
                [http(&format!("PUT /entity/{FLOOD_SCHEMA}/{key}"), &headers), document.into()].concat()
            }
        }
    }
}
