//! Drivers: they own sockets, timers and threads, feed the core with facts and carry out its effects.
//!
//! [`Driver::start`] runs a node on the mio driver: one event-loop thread, one thread that commits, one that loads.
//! What is the same for every driver is in [`disk`] (the two storage threads), [`clock`], and `addresses`.

#![forbid(unsafe_code)]

mod addresses;
pub mod clock;
pub mod disk;
mod handle;
pub mod limits;
mod mio;
mod streams;

pub use handle::{Events, Gone, Handle, Notice};
pub use mio::{Driver, DriverConfig, StartError};
