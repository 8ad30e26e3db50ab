//! What whole-system tests share: the conformance suite of drivers, a peer that is not made of the core, a node with
//! everything around it in memory, and the bodies of the fuzz targets.

#![forbid(unsafe_code)]

pub mod bench;
pub mod conformance;
pub mod fuzz_targets;
pub mod speaker;
