//! A deterministic world around PeerLink's core: simulated network, disks, clocks and people, faults, and an oracle
//! that holds the delivery contract against every step.
//!
//! What must be delivered in the end must be so in time, and there are two bounds for that: 120 s after the last fault
//! where people look at their conversations ([`limits::HEALING`]), and longer by the longest backoff of 15 minutes where
//! nobody does ([`limits::UNATTENDED`]).
//!
//! A [`Scenario`] says what happens, a [`World`] lets it happen, and an [`Outcome`] says what came of it. The same
//! scenario gives the same trace, to the byte. `peerlink-sim` runs thousands of them, one a seed.

#![forbid(unsafe_code)]

mod air;
mod attack;
pub mod disk;
mod driver;
pub mod fate;
mod fault;
mod homes;
mod host;
mod hostile;
pub mod limits;
pub mod nat;
mod net;
mod op;
mod oracle;
mod people;
mod plan;
pub mod probe;
mod queue;
mod regret;
mod relays;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod shrink;
pub mod speaker;
mod tap;
mod touch;
mod tracer;
mod twin;
mod watch;
mod weather;
mod wire;
mod world;

pub use disk::{Deed, Disk};
pub use fault::{Counts, Fault};
pub use homes::Home;
pub use op::{Attack, Block, Mischief, Op, Touch, relay};
pub use oracle::{Check, Violation};
pub use relays::{Moment, Sent, Turn};
pub use scenario::{Climate, Scenario};
pub use tracer::Print;
pub use world::{Outcome, World};
