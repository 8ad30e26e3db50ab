//! What the user decides about people: who is a contact, under which name, by which invitation.

use crate::api::{Command, ContactChange, Event, Refusal, TicketRefusal};
use crate::bounded::List;
use crate::cx::{Cx, Promise};
use crate::ids::{Name, PeerId, StreamId};
use crate::limits::{CONTACTS, INVITES, NAME_BYTES};
use crate::links::Links;
use crate::peers::{Peer, Peers};
use crate::profile::Own;
use crate::record::{Contact, ContactState, Conversation, Invite, Key, Record as _};
use crate::session::Identified;
use crate::ticket::{Ticket, TicketSecret};
use crate::time::{WallClock, millis};
use alloc::string::{String, ToString as _};

impl Peers {
    // --- requests --------------------------------------------------------------------------------------------

    /// Everything that a command may be refused for is checked before anything moves.
    pub(crate) fn refusal(&self, cx: &Cx, command: &Command) -> Option<Refusal> {
        let writes = !matches!(command, Command::Shutdown | Command::Reach { .. });
        if writes && self.stopping {
            return Some(Refusal::Stopping);
        }
        if writes && let Err(why) = cx.accepts() {
            return Some(why);
        }
        let unknown = |peer: &PeerId| self.contact(peer).is_none().then_some(Refusal::UnknownContact);
        match command {
            Command::Send { peer, body, fresh, .. } => self.send_refusal(peer, body, *fresh),
            Command::Invite { secret, .. } => {
                let known = self.invites.contains_key(&secret.invite_id());
                (!known && self.invites.len() >= INVITES).then_some(Refusal::TooManyInvites)
            }
            Command::Add { ticket, petname } => {
                if ticket.peer == cx.peer() {
                    return Some(Refusal::OwnTicket);
                }
                if !self.map.contains_key(&ticket.peer) && self.map.len() >= CONTACTS {
                    return Some(Refusal::TooManyContacts);
                }
                self.is_taken(petname, &ticket.peer).then_some(Refusal::NameTaken)
            }
            Command::Rename { peer, petname } => {
                unknown(peer).or_else(|| self.is_taken(petname, peer).then_some(Refusal::NameTaken))
            }
            Command::Remove { peer }
            | Command::Block { peer, .. }
            | Command::Verify { peer, .. }
            | Command::MarkRead { peer, .. }
            | Command::DeleteConversation { peer }
            | Command::Reach { peer } => unknown(peer),
            Command::Cancel { peer, message } => {
                unknown(peer).or_else(|| self.drop_refusal(peer, *message, true))
            }
            Command::Delete { peer, message } => {
                unknown(peer).or_else(|| self.drop_refusal(peer, *message, false))
            }
            Command::SetNickname { .. }
            | Command::SetExpire { .. }
            | Command::Advertise { .. }
            | Command::UseRelays { .. }
            | Command::UseStunServers { .. }
            | Command::Shutdown => None,
        }
    }

    fn send_refusal(&self, peer: &PeerId, body: &[u8], fresh: bool) -> Option<Refusal> {
        if body.is_empty() {
            return Some(Refusal::Empty);
        }
        if body.len() > crate::limits::BODY_BYTES {
            return Some(Refusal::TooLong);
        }
        if core::str::from_utf8(body).is_err() {
            return Some(Refusal::NotText);
        }
        let Some(contact) = self.contact(peer) else { return Some(Refusal::UnknownContact) };
        if fresh && contact.outgoing.is_full() {
            return Some(Refusal::QueueFull);
        }
        (!fresh && !self.can_look_up()).then_some(Refusal::Busy)
    }

    fn contact(&self, peer: &PeerId) -> Option<&Peer> {
        self.map.get(peer).filter(|peer| peer.is_contact())
    }

    /// Carries out a command that nothing speaks against.
    pub(crate) fn command(&mut self, cx: &mut Cx, links: &mut Links, own: &mut Own, command: Command) {
        match command {
            Command::Send { peer, caller, fresh: true, expire, body } => {
                self.append(cx, peer, caller, expire, body);
            }
            Command::Send { peer, caller, fresh: false, expire, body } => {
                self.look_up(peer, caller, expire, body);
                cx.touch(peer);
            }
            Command::Invite { secret, expires } => self.invite(cx, secret, expires),
            Command::Add { ticket, petname } => self.add(cx, links, &ticket, petname),
            Command::Rename { peer, petname } => {
                self.change(cx, peer, ContactChange::Renamed, |contact| contact.petname = petname);
            }
            Command::Remove { peer } => {
                self.change(cx, peer, ContactChange::Removed, |contact| {
                    contact.state = ContactState::Removed;
                    contact.verified = false;
                });
                self.part(cx, links, peer);
            }
            Command::Block { peer, blocked: true } => {
                self.change(cx, peer, ContactChange::Blocked, |contact| contact.blocked = true);
                self.part(cx, links, peer);
            }
            Command::Block { peer, blocked: false } => {
                self.change(cx, peer, ContactChange::Unblocked, |contact| contact.blocked = false);
                self.reach(cx, links, peer);
            }
            Command::Verify { peer, verified } => {
                let change = if verified { ContactChange::Verified } else { ContactChange::Unverified };
                self.change(cx, peer, change, |contact| contact.verified = verified);
            }
            Command::Cancel { peer, message } => self.drop_message(cx, peer, message, true),
            Command::Delete { peer, message } => self.drop_message(cx, peer, message, false),
            Command::DeleteConversation { peer } => self.delete_conversation(cx, peer),
            Command::MarkRead { peer, ordinal } => self.mark_read(cx, peer, ordinal),
            Command::SetNickname { nickname } => {
                own.profile.nickname.clone_from(&nickname);
                cx.nickname = nickname;
                own.write(cx);
                cx.promise_event(Event::ProfileChanged);
            }
            Command::SetExpire { after } => {
                own.profile.expire_ms = after.map(millis);
                cx.expire = after;
                own.write(cx);
                cx.promise_event(Event::ProfileChanged);
            }
            Command::Advertise { addresses } => {
                own.profile.advertised = addresses;
                own.write(cx);
                cx.promise_event(Event::ProfileChanged);
                own.renew(cx, false);
            }
            Command::UseRelays { relays } => own.relays(cx, relays),
            Command::UseStunServers { servers } => own.stun_servers(cx, servers),
            Command::Reach { peer } => {
                self.probe(cx, links, peer);
                self.reach(cx, links, peer);
            }
            Command::Shutdown => self.shutdown(cx, links),
        }
    }

    fn change(&mut self, cx: &mut Cx, id: PeerId, change: ContactChange, edit: impl FnOnce(&mut Contact)) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        edit(&mut peer.contact);
        cx.put(&Key::Contact(id), peer.contact.encode());
        cx.promise_event(Event::ContactChanged { peer: id, change });
    }

    fn mark_read(&mut self, cx: &mut Cx, id: PeerId, ordinal: u64) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        peer.conversation.read = peer.conversation.read.max(ordinal.min(peer.conversation.received));
        cx.put(&Key::Conversation(peer.contact.conversation), peer.conversation.encode());
        cx.promise_event(Event::ContactChanged { peer: id, change: ContactChange::Read });
    }

    fn add(&mut self, cx: &mut Cx, links: &mut Links, ticket: &Ticket, petname: Name) {
        let id = ticket.peer;
        let connected = self.map.get(&id).is_some_and(Peer::is_connected);
        let peer = self.map.entry(id).or_insert_with(|| new_peer(cx, id, petname.clone()));
        peer.contact.petname = petname;
        peer.contact.nickname = ticket.nickname.clone().or(peer.contact.nickname.take());
        peer.contact.ticket_addresses = List::of(ticket.addresses.iter().copied());
        if !ticket.relays.is_empty() {
            peer.contact.relays = ticket.relays.clone();
        }
        if !connected {
            peer.contact.state = ContactState::Pending { secret: ticket.secret.0 };
        }
        cx.put(&Key::Contact(id), peer.contact.encode());
        cx.promise_event(Event::ContactChanged { peer: id, change: ContactChange::Added });
        self.reach(cx, links, id);
    }

    fn is_taken(&self, petname: &Name, by_other_than: &PeerId) -> bool {
        let folded = fold(petname);
        self.map.iter().any(|(id, peer)| {
            id != by_other_than && peer.is_contact() && fold(&peer.contact.petname) == folded
        })
    }

    /// A petname for somebody who came by invitation: what he calls himself, changed until it poses as nobody else.
    fn free_name(&self, nickname: Option<&Name>, id: &PeerId) -> Option<Name> {
        let text = id.to_string();
        let fallback = text.get(..12).unwrap_or(&text);
        let base = nickname.map_or(fallback, Name::as_str);
        // There are fewer contacts than numbers to try.
        (1..=CONTACTS + 1).find_map(|n| {
            let suffix = if n == 1 { String::new() } else { alloc::format!("-{n}") };
            let mut stem = base;
            while stem.len() + suffix.len() > NAME_BYTES {
                let mut chars = stem.chars();
                chars.next_back();
                stem = chars.as_str();
            }
            let name = Name::new(&alloc::format!("{}{suffix}", stem.trim_end())).ok()?;
            (!self.is_taken(&name, id)).then_some(name)
        })
    }

    // --- invitations -----------------------------------------------------------------------------------------

    fn invite(&mut self, cx: &mut Cx, secret: TicketSecret, expires: WallClock) {
        let id = secret.invite_id();
        let invite = Invite { expires, spent_by: self.invites.get(&id).and_then(|known| known.spent_by) };
        cx.put(&Key::Invite(id), invite.encode());
        self.invites.insert(id, invite);
        cx.promise_event(Event::InviteStored { secret });
    }

    /// Makes room: an expired invitation is kept as long as there is, so that who presents it is told that it expired.
    pub(crate) fn drop_expired_invites(&mut self, cx: &mut Cx) {
        if self.invites.len() < INVITES {
            return;
        }
        let now = cx.wall();
        let expired: alloc::vec::Vec<_> =
            self.invites.iter().filter(|(_, invite)| invite.expires < now).map(|(id, _)| *id).collect();
        for id in expired {
            self.invites.remove(&id);
            cx.delete(&Key::Invite(id));
        }
    }

    /// Somebody presents a secret. The secret is spent in the batch that makes the contact, and the session opens
    /// when that batch is durable; the same peer presenting it again is answered again.
    pub(crate) fn redeem(
        &mut self,
        cx: &mut Cx,
        stream: StreamId,
        who: &Identified,
        secret: [u8; 16],
    ) -> Result<(), TicketRefusal> {
        let id = TicketSecret(secret).invite_id();
        let now = cx.wall();
        let invite = self.invites.get(&id).ok_or(TicketRefusal::Unknown)?;
        match invite.spent_by {
            Some(_) => return Err(TicketRefusal::Spent),
            None if invite.expires < now => return Err(TicketRefusal::Expired),
            None => {}
        }
        if cx.accepts().is_err() || (!self.map.contains_key(&who.peer) && self.map.len() >= CONTACTS) {
            return Err(TicketRefusal::Full);
        }
        let nickname = who.nickname.as_ref().and_then(|name| Name::lossy(name.as_str()));
        let petname = self.free_name(nickname.as_ref(), &who.peer).ok_or(TicketRefusal::Full)?;
        let invite = Invite { expires: invite.expires, spent_by: Some(who.peer) };
        cx.put(&Key::Invite(id), invite.encode());
        self.invites.insert(id, invite);
        let peer = self.map.entry(who.peer).or_insert_with(|| new_peer(cx, who.peer, petname.clone()));
        // A contact that was removed and invited again goes on from the kept heads, under its new name.
        peer.contact.petname = petname;
        peer.contact.nickname = nickname;
        peer.contact.state = ContactState::Established;
        peer.made_in = cx.batch();
        cx.put(&Key::Contact(who.peer), peer.contact.encode());
        cx.promise_event(Event::ContactChanged { peer: who.peer, change: ContactChange::Established });
        cx.promise(Promise::Open(stream));
        Ok(())
    }
}

/// Names that differ only in case, spaces or look-alike ASCII pose as each other.
fn fold(name: &Name) -> String {
    let look_alike = |c: char| match c {
        '0' => 'o',
        '1' | '|' | 'i' => 'l',
        other => other,
    };
    name.as_str()
        .chars()
        .flat_map(char::to_lowercase)
        .filter(|c| !c.is_whitespace())
        .map(look_alike)
        .collect()
}

/// A contact that was not there: its own conversation and feed numbers, nothing sent, nothing received.
fn new_peer(cx: &mut Cx, id: PeerId, petname: Name) -> Peer {
    let no = cx.new_conversation();
    let contact = Contact {
        state: ContactState::Established,
        petname,
        nickname: None,
        blocked: false,
        verified: false,
        conversation: no,
        ticket_addresses: List::new(),
        record_addresses: List::new(),
        relays: List::new(),
        record_seq: 0,
        record: bytes::Bytes::new(),
        added: cx.wall(),
    };
    let conversation = Conversation { peer: id, received: 0, read: 0, erase: None };
    cx.put(&Key::Conversation(no), conversation.encode());
    Peer::new(cx, id, contact, conversation)
}
