//! Ways to reach a peer. Each is a small machine of its own; so far there is one.

pub(crate) mod channel;
pub(crate) mod dial;
pub(crate) mod mapping;
pub(crate) mod observe;
