//! What whole-system tests share.

#![forbid(unsafe_code)]

pub mod conformance;
