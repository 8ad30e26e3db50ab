//! What whole-system tests share: the conformance suite of drivers, a node with everything around it in
//! memory, a peer that is not made of the core, and the bodies of the fuzz targets.

#![forbid(unsafe_code)]

pub mod bench;
pub mod conformance;
pub mod fuzz_targets;
pub use peerlink_sim::speaker;

// The socket protocol as front ends and nodes read it. They are parts of a program, not of a library, so they are
// compiled in here a second time.
#[path = "../../cli/src/fault.rs"]
#[allow(dead_code, reason = "a target needs the part that reads")]
mod fault;
#[path = "../../cli/src/proto.rs"]
#[allow(dead_code, reason = "a target needs the part that reads")]
mod proto;
