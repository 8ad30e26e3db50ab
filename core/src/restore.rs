//! From records on disk to a running node.

use crate::bounded::List;
use crate::cx::Cx;
use crate::identity::{Identity, IdentitySecret};
use crate::ids::{ConversationNo, EntryHash, Epoch, FeedNo, InviteId, PeerId};
use crate::node::{Config, Node};
use crate::peers::{Peer, Peers};
use crate::planted::planted;
use crate::profile::Own;
use crate::record::{
    Contact, Conversation, CorruptRecord, Counters, Feed, Invite, Key, Lived, Profile, Record as _,
};
use crate::rng::Rng;
use crate::time::{Duration, Instant, WallClock};
use alloc::collections::BTreeMap;

/// Collects what was stored, then starts. Records with keys before [`crate::record::RESTORE_END`] are given in any
/// order, each once.
///
/// It holds identity, contacts, heads and cursors, never history: a node with a million messages starts as fast as
/// one with none, and loads what is unacknowledged when its turn comes.
#[derive(Debug)]
pub struct Restore {
    config: Config,
    secret: IdentitySecret,
    seed: [u8; 32],
    profile: Option<Profile>,
    counters: Counters,
    lived: Option<Lived>,
    contacts: BTreeMap<PeerId, Contact>,
    invites: BTreeMap<InviteId, Invite>,
    conversations: BTreeMap<ConversationNo, Conversation>,
    feeds: BTreeMap<FeedNo, Feed>,
}

impl Restore {
    /// `seed` must be fresh entropy at every start: from it come ephemeral keys, and a new store's epoch.
    #[must_use]
    pub fn new(config: Config, secret: &IdentitySecret, seed: [u8; 32]) -> Self {
        Self {
            config,
            secret: secret.clone(),
            seed,
            profile: None,
            counters: Counters::default(),
            lived: None,
            contacts: BTreeMap::new(),
            invites: BTreeMap::new(),
            conversations: BTreeMap::new(),
            feeds: BTreeMap::new(),
        }
    }

    /// One stored record. Records of history are passed over.
    ///
    /// # Errors
    /// `CorruptRecord`: the store is damaged or newer; the caller ends and says so.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), CorruptRecord> {
        match Key::decode(key)? {
            Key::Profile => self.profile = Some(Profile::decode(value)?),
            Key::Counters => self.counters = Counters::decode(value)?,
            Key::Lived => self.lived = Some(Lived::decode(value)?),
            Key::Contact(peer) => {
                self.contacts.insert(peer, Contact::decode(value)?);
            }
            Key::Invite(id) => {
                self.invites.insert(id, Invite::decode(value)?);
            }
            Key::Conversation(no) => {
                self.conversations.insert(no, Conversation::decode(value)?);
            }
            Key::Feed(no) => {
                self.feeds.insert(no, Feed::decode(value)?);
            }
            Key::Entry { .. }
            | Key::Order(_)
            | Key::Arrival(_)
            | Key::Caller { .. }
            | Key::Shown { .. }
            | Key::Expiry { .. } => {}
        }
        Ok(())
    }

    /// # Errors
    /// `CorruptRecord::Dangling` if records that belong together are not all there.
    pub fn start(mut self, now: Instant, wall: WallClock) -> Result<Node, CorruptRecord> {
        let identity = Identity::new(&self.secret).ok_or(CorruptRecord::Dangling("a valid identity"))?;
        let mut rng = Rng::from_seed(core::mem::take(&mut self.seed));
        let mut profile = match self.profile.take() {
            Some(profile) => profile,
            None if self.contacts.is_empty() && self.feeds.is_empty() => new_profile(&mut rng),
            None => return Err(CorruptRecord::Dangling("the profile record")),
        };
        if profile.epoch == Epoch::TO_BE_DRAWN {
            profile.epoch = Epoch(rng.bytes());
        }
        profile.start += 1;
        let mut cx = Cx::new(identity, rng, self.config.network, profile.epoch, profile.start);
        cx.datagrams = self.config.datagrams;
        cx.datagrams_first = self.config.datagrams_first;
        #[cfg(peerlink_planted)]
        {
            cx.planted = self.config.planted;
        }
        cx.start_at(now, wall, self.lived);
        cx.nickname.clone_from(&profile.nickname);
        cx.expire = profile.expire_ms.map(Duration::from_millis);
        cx.counters = self.counters;
        cx.next_conversation = self.conversations.keys().next_back().map_or(1, |no| no.0 + 1);
        cx.next_feed = self.feeds.keys().next_back().map_or(1, |no| no.0 + 1);
        let config = self.config.clone();
        let mut peers = Peers::new();
        peers.invites = core::mem::take(&mut self.invites);
        peers.expiries.look = !planted!(cx, ExpiryForgotten);
        self.peers(&mut cx, &mut peers)?;
        Ok(Node::start(cx, peers, Own::new(profile), &config))
    }

    fn peers(mut self, cx: &mut Cx, peers: &mut Peers) -> Result<(), CorruptRecord> {
        let mut owners = BTreeMap::new();
        for (id, contact) in core::mem::take(&mut self.contacts) {
            let no = contact.conversation;
            let conversation = self.conversations.remove(&no).filter(|conversation| conversation.peer == id);
            let conversation = conversation.ok_or(CorruptRecord::Dangling("a contact's conversation"))?;
            owners.insert(no, id);
            let peer = Peer::new(cx, id, contact, conversation);
            peers.map.insert(id, peer);
        }
        for (no, feed) in self.feeds {
            let owner =
                owners.get(&feed.conversation).ok_or(CorruptRecord::Dangling("a feed's conversation"))?;
            match peers.map.get_mut(owner) {
                Some(peer) if feed.mine && planted!(cx, EvidenceLostAtStart) => {
                    peer.outgoing.restore(no, Feed { acked: 0, acked_hash: EntryHash::NONE, ..feed });
                }
                Some(peer) if feed.mine => peer.outgoing.restore(no, feed),
                Some(peer) => peer.inbox.restore(no, feed),
                None => {}
            }
        }
        Ok(())
    }
}

fn new_profile(rng: &mut Rng) -> Profile {
    Profile {
        epoch: Epoch(rng.bytes()),
        start: 0,
        nickname: None,
        advertised: List::new(),
        record_seq: 0,
        record_addresses: List::new(),
        expire_ms: None,
    }
}
