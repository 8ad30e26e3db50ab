//! Real faults on the real program: two processes in a conversation over loopback, on real disks that fail, fill up,
//! lose power or change a bit, and SIGKILL at any moment. What was promised must be there at the end, on both sides,
//! once and in order, or the program must have said that it is not.
//!
//! `PEERLINK_FAULTS=long cargo test -p peerlink-tests --test faults -- --nocapture --test-threads=1` runs each many
//! more times. Every fault says `RAN` or `SKIPPED` with the reason, and has a control: the same check, asked about
//! a store that really lost something, must find that.

mod bits;
mod calls;
mod full;
mod kills;
mod people;
mod power;
