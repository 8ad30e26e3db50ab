//! What whole-system tests share: the conformance suite of drivers, a node with everything around it in
//! memory, a peer that is not made of the core, and the bodies of the fuzz targets.

#![forbid(unsafe_code)]

pub mod bench;
pub mod conformance;
pub mod fuzz_targets;
pub use peerlink_sim::speaker;
