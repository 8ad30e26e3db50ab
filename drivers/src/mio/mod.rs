//! The driver on `mio`: one thread that waits for sockets, timers and the store.

mod alarm;
mod datagrams;
mod link;
mod net;

use crate::addresses::Addresses;
use crate::bell::{Bell, Watchman};
use crate::clock::{Watch, now as clock_now, read, wall};
use crate::disk::Disk;
use crate::handle::{Handle, StartError};
use crate::limits::{LISTENERS, REQUESTS, REST, SOCKET_EVENTS};
use crate::machine::Machine;
use crate::notices::{Events, board};
use crate::shell::Shell;
use ::mio::{Events as SocketEvents, Poll, Token, Waker};
use alarm::Alarm;
use net::{ALARM, Net, WAKER, listen};
use peerlink_core::api::{Input, Loader, Store};
use peerlink_core::time::Instant;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// What a driver is told beside the node itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DriverConfig {
    /// Where to listen; port 0 lets the system choose. IPv6 sockets take IPv6 only, so that both families can share a
    /// port. None at all is a node that only dials. Datagrams come and go at the same addresses.
    pub listen: Vec<SocketAddr>,
}

/// Runs nodes on `mio`.
#[derive(Debug)]
pub struct Driver;

impl Driver {
    /// Binds the listeners, starts the threads. `machine` must have been made with the time of [`crate::clock`].
    ///
    /// # Errors
    /// `StartError` if an address cannot be bound, or the system has no descriptors or threads to give. An IPv6
    /// wildcard on a machine without IPv6 is left out if another listener stands.
    pub fn start<M, S, L>(
        machine: M,
        store: S,
        loader: L,
        config: DriverConfig,
    ) -> Result<(Handle, Events), StartError>
    where
        M: Machine,
        S: Store + 'static,
        L: Loader + 'static,
    {
        if config.listen.len() > LISTENERS {
            return Err(StartError::TooManyListeners);
        }
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), Token(WAKER))?;
        // A wake-up that fails has nobody to tell; the loop hears at its next timer.
        let bell = Bell::new(move || drop(waker.wake()));
        let listeners = listen(&config.listen)?;
        let bound: Vec<SocketAddr> = listeners.iter().map(|(_, address)| *address).collect();
        let net = Net::new(poll.registry().try_clone()?, listeners)?;
        let disk = Disk::start(store, loader, &bell)?;
        let (requests, asked) = sync_channel(REQUESTS);
        let (notices, events) = board();
        let shell = Shell::new(machine, disk, notices, asked, Arc::clone(&bell));
        let alarm = Alarm::new(poll.registry(), Token(ALARM))?;
        let turner = Loop { poll, alarm, net, shell, addresses: Addresses::new(bound.clone()) };
        let watchman = Watchman(Arc::clone(&bell));
        let thread = std::thread::Builder::new().name("peerlink-loop".to_owned()).spawn(move || {
            let _watchman = watchman;
            turner.run();
        })?;
        Ok((Handle::new(requests, bell, bound, thread), events))
    }
}

struct Loop<M> {
    poll: Poll,
    alarm: Alarm,
    net: Net,
    shell: Shell<M>,
    addresses: Addresses,
}

impl<M: Machine> Loop<M> {
    fn run(mut self) {
        let reading = read();
        let mut watch = Watch::new(reading);
        let mut sockets = SocketEvents::with_capacity(SOCKET_EVENTS);
        let now = Instant::from_micros(reading.counted_us);
        self.shell.fact(now, Input::WallClock(wall()));
        self.look_at_addresses(now, true);
        loop {
            self.shell.turn(clock_now, &mut self.net);
            if self.shell.over(clock_now(), &self.net) {
                break;
            }
            debug_assert!(!self.shell.is_stuck(), "something is due for ever, and nothing comes of it");
            let timeout = self.timeout();
            match self.poll.poll(&mut sockets, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => sockets.clear(),
                // Nothing can be waited for any more. Never seen; must not spin.
                Err(_) => std::thread::sleep(REST),
            }
            let reading = read();
            let now = Instant::from_micros(reading.counted_us);
            let seen = watch.look(reading);
            if let Some(wall) = seen.wall {
                self.shell.fact(now, Input::WallClock(wall));
            }
            for event in &sockets {
                self.net.event(now, event);
            }
            self.net.due(now);
            self.net.accept(now);
            self.shell.facts(now, &mut self.net);
            self.net.read(now, &mut self.shell);
            let unreachable = self.net.take_unreachable();
            self.look_at_addresses(now, unreachable || seen.slept || seen.wall.is_some());
        }
        let Self { net, shell, .. } = self;
        drop(net);
        shell.close();
    }

    fn look_at_addresses(&mut self, now: Instant, reason: bool) {
        for fact in self.addresses.look(now, reason) {
            self.shell.fact(now, fact);
        }
    }

    /// How long to wait for sockets: not at all if work is left, else until the first timer, in whole milliseconds
    /// rounded up, because the system counts in those and a wait that ends too early would be a busy loop.
    fn timeout(&mut self) -> Option<Duration> {
        if self.net.has_work() || self.shell.has_work() {
            return Some(Duration::ZERO);
        }
        if self.shell.is_stuck() {
            return Some(REST);
        }
        let due = match (self.shell.deadline(), self.net.deadline()) {
            (Some(a), Some(b)) => a.min(b),
            (Some(due), None) | (None, Some(due)) => due,
            (None, None) => return None,
        };
        let now = clock_now();
        self.alarm.set(now, Some(due));
        let wait = due.saturating_since(now);
        let millis = wait.as_micros().div_ceil(1000);
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }
}
