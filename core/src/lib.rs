//! PeerLink's protocol as a pure state machine: no clock, no entropy, no I/O, no `std`.
//!
//! [`Restore`] turns stored records into a [`Node`]; a driver feeds it [`api::Input`]s and [`api::Command`]s and
//! carries out the [`api::Output`]s that [`Node::poll`] gives. The contract is written at [`Node`].

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::unreachable
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

// Floor 0: vocabulary.
pub mod bounded;
pub mod ids;
pub mod limits;
pub mod planted;
pub mod time;

// Floor 1: language.
pub mod api;
pub mod identity;
pub mod record;
mod rng;
pub mod ticket;
pub mod trace;
pub mod wire;

// Floor 2: mechanisms.
mod age;
mod assemble;
mod backoff;
mod bucket;
mod chain;
mod congestion;
mod cx;
mod deframe;
mod gate;
mod noise;
mod parts;
mod recovery;
mod rtt;
mod timers;
mod window;

// Floor 3: machines, one remote thing each.
mod giveback;
mod inbox;
mod outbox;
mod path;
mod session;

// Floor 4: tables.
mod contacts;
mod erase;
mod expire;
mod gateways;
mod links;
mod outgoing;
mod peers;
mod profile;
mod relay;
mod via;

// Floor 5: the node.
mod node;
mod restore;

pub use node::{Config, Node};
pub use restore::Restore;
