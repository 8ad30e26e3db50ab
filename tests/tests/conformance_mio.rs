//! The mio driver keeps every rule.

use peerlink_core::api::{Loader, Store};
use peerlink_drivers::{Driver, DriverConfig, Events, Handle, Machine, StartError};
use peerlink_tests::conformance::DriverUnderTest;
use std::net::SocketAddr;

#[derive(Debug)]
struct Mio;

impl DriverUnderTest for Mio {
    fn start<M, S, L>(
        machine: M,
        store: S,
        loader: L,
        listen: &[SocketAddr],
    ) -> Result<(Handle, Events), StartError>
    where
        M: Machine,
        S: Store + 'static,
        L: Loader + 'static,
    {
        Driver::start(machine, store, loader, DriverConfig { listen: listen.to_vec() })
    }
}

peerlink_tests::conformance!(Mio);
