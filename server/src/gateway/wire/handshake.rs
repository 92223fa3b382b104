//! Hello in, Welcome out.

use crate::auth::Principal;
use crate::command::{ErrorCode, Failure};
use crate::gateway::api::Api;
use crate::limits::{MULTI_KEYS_MAX, PAGE_ENTRIES_MAX, REQUESTS_IN_FLIGHT_MAX};
use delta_wire::PROTOCOL;
use delta_wire::encode::Scratch;
use delta_wire::generated::{self as tables, Body, Frame};

/// Who this server is, as Welcome tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireIdentity {
    /// The server's version.
    pub server_version: String,
    /// The store's id, in hex.
    pub store_id: String,
}

/// Judges the first frame of a connection.
pub fn judge_hello<A: Api>(api: &A, frame: &Frame<'_>) -> Result<Principal, Failure> {
    let Some(hello) = frame.body_as_hello() else {
        let message = "the first frame must be Hello, with a credential";
        return Err(Failure::new(ErrorCode::Unauthenticated, message));
    };
    if hello.protocol() != PROTOCOL {
        let message = format!(
            "protocol {} is not spoken here, protocol {PROTOCOL} is; use a client of this server's version",
            hello.protocol()
        );
        return Err(Failure::new(ErrorCode::UnsupportedProtocol, message));
    }
    api.authenticate(hello.credential().map(|credential| credential.bytes()))
}

/// Appends the Welcome frame.
pub fn render_welcome<A: Api>(
    api: &A,
    identity: &WireIdentity,
    principal: &Principal,
    frame_bytes_max: usize,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
    request_id: u64,
) {
    let topology = api.topology();
    let addresses = topology.addresses.iter().chain(std::iter::repeat(&None));
    scratch.frame(out, request_id, Body::Welcome, |builder| {
        let shards: Vec<_> = (0..topology.shards())
            .zip(addresses)
            .map(|(shard, address)| {
                let slots = topology.slots_of(shard);
                let address = address.map(|address| builder.create_string(&address.to_string()));
                let args = tables::ShardArgs { first_slot: *slots.start(), last_slot: *slots.end(), address };
                tables::Shard::create(builder, &args)
            })
            .collect();
        let permissions: Vec<_> =
            principal.permissions().into_iter().map(|permission| builder.create_string(permission)).collect();
        let limits = tables::LimitsArgs {
            document_bytes: as_u32(api.body_bytes_max()),
            frame_bytes: as_u32(frame_bytes_max),
            requests_in_flight: as_u32(REQUESTS_IN_FLIGHT_MAX),
            multi_keys: as_u32(MULTI_KEYS_MAX),
            page_entries: as_u32(PAGE_ENTRIES_MAX),
        };
        let args = tables::WelcomeArgs {
            protocol: PROTOCOL,
            server_version: Some(builder.create_string(&identity.server_version)),
            store_id: Some(builder.create_string(&identity.store_id)),
            hash_seed: topology.hash_seed,
            shard: api.shard() as u16,
            shards: Some(builder.create_vector(&shards)),
            limits: Some(tables::Limits::create(builder, &limits)),
            principal: Some(builder.create_string(&principal.name)),
            permissions: Some(builder.create_vector(&permissions)),
        };
        tables::Welcome::create(builder, &args).as_union_value()
    });
}

fn as_u32(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
