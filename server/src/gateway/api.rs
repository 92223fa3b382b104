//! What a protocol skin may ask of the server behind it: the one dispatch path, as a trait, so that skins can be
//! tested against a stand-in.

use crate::auth::Principal;
use crate::command::{Access, Command, EntityRef, Failure, Outcome, Ticket};
use crate::routing::Topology;
use std::future::Future;

/// Whether the server can serve, and why not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Reads and writes are served.
    pub ready: bool,
    /// One sentence a problem; empty when ready.
    pub reasons: Vec<String>,
    /// What needs somebody to act though the server serves: damage that was found.
    pub alerts: Vec<String>,
    /// A graceful stop has begun.
    pub draining: bool,
}

/// The dispatch path of one shard.
pub trait Api: 'static {
    /// Judges a bearer credential.
    fn authenticate(&self, credential: Option<&[u8]>) -> Result<Principal, Failure>;

    /// Authorizes, validates, routes and executes. `Some` when the outcome is known at once (a cache hit, a refusal);
    /// otherwise the skin gets `(ticket, outcome)` later, in any order, exactly once.
    fn submit(&self, principal: &Principal, command: Command<'_>, ticket: Ticket) -> Option<Outcome>;

    /// The same for a caller that can wait.
    fn call(&self, principal: &Principal, command: Command<'static>) -> impl Future<Output = Outcome> + 'static;

    /// Entities that requests which have arrived will ask for. Nothing comes of it but that memory is at hand sooner.
    fn look_ahead<'a>(&self, _entities: &mut dyn Iterator<Item = (EntityRef<'a>, Access)>) {}

    /// Requests of this shard that wait for room at another shard. When `submit` makes it grow, that request waits, and
    /// its connection should bring no more until one of them has found room.
    fn waiting_for_room(&self) -> usize {
        0
    }

    /// Whether the server can serve.
    fn health(&self) -> Health;

    /// Slots, shards and their addresses.
    fn topology(&self) -> Topology;

    /// Largest body.
    fn body_bytes_max(&self) -> usize;

    /// This shard's number.
    fn shard(&self) -> usize;

    /// Figures of the whole process; this shard writes only `shards[self.shard()]`.
    fn metrics(&self) -> &std::sync::Arc<crate::metrics::Metrics>;
}
