//! What runs a node in the real world: sockets, threads, timers and clocks around the pure state machine of
//! `peerlink-core`.
//!
//! A driver feeds facts into a [`Machine`], carries out its effects in order, and gives front ends a cloneable
//! [`Handle`] for commands and one stream of [`Events`]. One thread runs the loop; two more belong to the store, one
//! that commits and one that loads, because a disk may stall and the loop may not.
//!
//! `shell` holds what does not depend on how sockets are waited for; `mio` is the driver on `mio`.

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

mod addresses;
mod bell;
pub mod clock;
mod disk;
mod gateways;
mod handle;
pub mod limits;
mod machine;
mod mio;
mod notices;
mod shell;

pub use crate::handle::{Gone, Handle, StartError};
pub use crate::machine::Machine;
pub use crate::mio::{Driver, DriverConfig};
pub use crate::notices::{Events, Notice};
pub use crate::shell::Carried;
