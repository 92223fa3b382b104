//! The connections of one client and which of them a request takes.
//!
//! Route 0 is the address the client was given; route `1 + shard` leads straight to a shard. Any route can fall back
//! to route 0, since every shard serves every key.

use super::error::ClientError;
use super::link::Link;
use super::options::{Address, ClientOptions};
use crate::reply::Welcome;
use crate::request::Request;
use crate::slot::{SLOTS, slot_of};
use std::net::{IpAddr, SocketAddr};

/// The route to the address the client was given.
pub const PRIMARY: usize = 0;

pub struct Router {
    options: ClientOptions,
    welcome: Welcome,
    /// By route; the primary's is first.
    links: Vec<Option<Link>>,
    /// By shard: its own address, unless it has none or it failed.
    addresses: Vec<Option<SocketAddr>>,
    /// The route of each slot.
    routes: Box<[u16; SLOTS]>,
}

impl Router {
    /// Connects the primary.
    pub fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let mut router = Self {
            options,
            welcome: Welcome::default(),
            links: vec![None],
            addresses: Vec::new(),
            routes: Box::new([PRIMARY as u16; SLOTS]),
        };
        router.open_primary()?;
        Ok(router)
    }

    /// What it was told to be.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// What the server last said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The route a request should take.
    pub fn route_of(&self, request: &Request<'_>) -> usize {
        if !self.options.shard_aware {
            return PRIMARY;
        }
        request.entity().map_or(PRIMARY, |(schema, key)| {
            usize::from(self.routes[usize::from(slot_of(self.welcome.hash_seed, schema, key))])
        })
    }

    /// Makes sure that a route has a usable link, or that the primary has one instead; gives the route to take.
    pub fn open(&mut self, route: usize) -> Result<usize, ClientError> {
        if self.links.get(route).and_then(Option::as_ref).is_some_and(Link::is_usable) {
            return Ok(route);
        }
        self.close(route);
        if route != PRIMARY && self.open_shard(route - 1) {
            return Ok(route);
        }
        if route != PRIMARY {
            return self.open(PRIMARY);
        }
        self.open_primary()?;
        Ok(PRIMARY)
    }

    /// The link of an open route.
    pub fn link(&mut self, route: usize) -> Option<&mut Link> {
        self.links.get_mut(route)?.as_mut()
    }

    /// Forgets a link that failed.
    pub fn close(&mut self, route: usize) {
        if let Some(link) = self.links.get_mut(route) {
            *link = None;
        }
    }

    fn open_primary(&mut self) -> Result<(), ClientError> {
        let link = Link::connect(&self.options.address, &self.options)?;
        self.learn(link.welcome().clone(), link.peer_ip());
        self.links[PRIMARY] = Some(link);
        Ok(())
    }

    /// Connects to a shard's own address; one that cannot be reached, or is of another store, is not tried again
    /// before the primary is connected anew.
    fn open_shard(&mut self, shard: usize) -> bool {
        let Some(address) = self.addresses.get(shard).copied().flatten() else { return false };
        match Link::connect(&Address::Tcp(address), &self.options) {
            Ok(link) if link.welcome().store_id == self.welcome.store_id => {
                self.links[1 + shard] = Some(link);
                true
            }
            _ => {
                self.addresses[shard] = None;
                self.derive_routes();
                false
            }
        }
    }

    /// Takes in the topology. Links to shards survive only if it is the same as before.
    fn learn(&mut self, welcome: Welcome, peer_ip: Option<IpAddr>) {
        let is_same = welcome.store_id == self.welcome.store_id
            && welcome.hash_seed == self.welcome.hash_seed
            && welcome.shards == self.welcome.shards;
        self.addresses = welcome
            .shards
            .iter()
            .map(|shard| {
                let mut address: SocketAddr = shard.address.as_deref()?.parse().ok()?;
                let peer_ip = peer_ip?;
                if address.ip().is_unspecified() {
                    address.set_ip(peer_ip);
                }
                Some(address)
            })
            .collect();
        if !is_same {
            self.links.truncate(1);
        }
        self.links.resize_with(1 + welcome.shards.len(), || None);
        self.welcome = welcome;
        self.derive_routes();
    }

    fn derive_routes(&mut self) {
        self.routes.fill(PRIMARY as u16);
        for (shard, range) in self.welcome.shards.iter().enumerate() {
            let has_own = self.addresses.get(shard).is_some_and(Option::is_some);
            if has_own && shard != usize::from(self.welcome.shard) {
                let slots = usize::from(range.first_slot)..=usize::from(range.last_slot);
                for route in self.routes.get_mut(slots).into_iter().flatten() {
                    *route = 1 + shard as u16;
                }
            }
        }
    }
}
