#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod api;
pub mod bounded;
pub mod identity;
pub mod ids;
pub mod limits;
mod node;
mod noise;
pub mod planted;
pub mod record;
mod restore;
mod rng;
pub mod ticket;
pub mod time;
pub mod trace;

pub use node::{Config, Node};
pub use restore::Restore;
