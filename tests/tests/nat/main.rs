//! A laboratory of network namespaces: hosts behind boxes that are the kernel's own address translation and firewalls,
//! joined by an internet of one router. In it, the boxes are asked what they are, by the questions that the simulator's
//! model is asked too, and both must answer the same; and real processes of the program talk through them.
//!
//! Everything is in a private namespace of networks, mounts and processes, in which these tests start themselves again:
//! whatever ends them, nothing is left, and nothing outside can be reached. It takes root, or a system that lets users
//! have namespaces, and `ip` and `nft`; without them a test says `SKIPPED` and why.
//!
//! `cargo test -p peerlink-tests --test nat -- --nocapture`

mod boxes;
mod cells;
mod lab;
mod meetings;
mod openers;
#[path = "../faults/people.rs"]
#[allow(dead_code, reason = "shared with the tests of real faults, which use more of it")]
mod people;
mod ports;
mod rules;
mod stun;
mod vantage;
