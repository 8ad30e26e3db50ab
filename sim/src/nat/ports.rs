//! The choice of an external address and port.

use super::cfg::{Clash, NatCfg, Pooling, Ports};
use crate::fate::{Dice, Fates, Purpose};
use crate::limits::{PORT_FIRST, PORT_TRIES};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

#[derive(Debug, Clone)]
pub(super) struct Chooser {
    dice: Dice,
    /// The last one of a sequence.
    last: Option<u16>,
    /// Where the block of each inside host begins.
    blocks: BTreeMap<IpAddr, u16>,
    /// The external address of each inside host.
    pairs: BTreeMap<IpAddr, IpAddr>,
}

impl Chooser {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(Fates::new(seed)),
            last: None,
            blocks: BTreeMap::new(),
            pairs: BTreeMap::new(),
        }
    }

    /// Forgets who had what, as a box that starts again.
    pub(super) fn forget(&mut self) {
        self.last = None;
        self.blocks.clear();
        self.pairs.clear();
    }

    /// A free external endpoint for one inside; `usable` says which are free.
    pub(super) fn choose(
        &mut self,
        cfg: &NatCfg,
        external: &[IpAddr],
        inside: SocketAddr,
        usable: impl Fn(SocketAddr) -> bool,
    ) -> Option<SocketAddr> {
        let address = self.address(cfg.pooling, external, inside.ip())?;
        let usable = |port: u16| usable(SocketAddr::new(address, port));
        let port = match cfg.ports {
            Ports::Preserving(_) if usable(inside.port()) => Some(inside.port()),
            Ports::Preserving(Clash::Next) => {
                walk(PORT_FIRST, u16::MAX, inside.port().saturating_add(1), 1, usable)
            }
            Ports::Preserving(Clash::Random) | Ports::Random => self.random(PORT_FIRST, u16::MAX, usable),
            Ports::Sequential(step) => {
                let start = match self.last {
                    Some(last) => last.checked_add(step).unwrap_or(PORT_FIRST),
                    None => self.draw(PORT_FIRST, u16::MAX),
                };
                self.last = walk(PORT_FIRST, u16::MAX, start, step, usable);
                self.last
            }
            Ports::Block(size) => {
                let first = self.block(inside.ip(), size.max(1));
                self.random(first, first.saturating_add(size.max(1) - 1), usable)
            }
        };
        port.map(|port| SocketAddr::new(address, port))
    }

    fn draw(&mut self, low: u16, high: u16) -> u16 {
        let draw = self.dice.between(Purpose::Port, 0, u64::from(low), u64::from(high));
        u16::try_from(draw).unwrap_or(high)
    }

    fn random(&mut self, low: u16, high: u16, usable: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in 0..PORT_TRIES {
            let port = self.draw(low, high);
            if usable(port) {
                return Some(port);
            }
        }
        let start = self.draw(low, high);
        walk(low, high, start, 1, usable)
    }

    fn block(&mut self, inside: IpAddr, size: u16) -> u16 {
        if let Some(first) = self.blocks.get(&inside) {
            return *first;
        }
        let count = (u16::MAX - PORT_FIRST) / size;
        let at = |block: u16| PORT_FIRST + block * size;
        let mut block = self.draw(0, count.saturating_sub(1));
        // If every block has somebody, two hosts share one.
        for _ in 0..count {
            if !self.blocks.values().any(|first| *first == at(block)) {
                break;
            }
            block = (block + 1) % count;
        }
        self.blocks.insert(inside, at(block));
        at(block)
    }

    fn address(&mut self, pooling: Pooling, external: &[IpAddr], inside: IpAddr) -> Option<IpAddr> {
        let most = u64::try_from(external.len()).unwrap_or(u64::MAX);
        let mut any = || {
            let drawn = if most > 1 { self.dice.below(Purpose::Port, 0, most) } else { 0 };
            external.get(usize::try_from(drawn).unwrap_or(0)).copied()
        };
        match pooling {
            Pooling::Arbitrary => any(),
            Pooling::Paired => {
                let known = self.pairs.get(&inside).filter(|address| external.contains(address)).copied();
                let address = known.or_else(any)?;
                self.pairs.insert(inside, address);
                Some(address)
            }
        }
    }
}

/// The first usable port from `start` on, in steps, around the end of the range once.
fn walk(low: u16, high: u16, start: u16, step: u16, usable: impl Fn(u16) -> bool) -> Option<u16> {
    let mut port = start.clamp(low, high);
    for _ in low..=high {
        if usable(port) {
            return Some(port);
        }
        port = port.checked_add(step.max(1)).filter(|port| *port <= high).unwrap_or(low);
    }
    None
}
