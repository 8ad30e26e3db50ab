//! Answers requests of front ends from the node and its store. Everything that promises something is answered when it
//! is durable.

use crate::fault::{Code, Fault};
use crate::hub::{Hub, Note};
use crate::limits::DURABLE;
use crate::proto::Request;
use bytes::Bytes;
use peerlink_core::api::{Command, ContactChange, Event, Expire, Refusal, TicketRefusal};
use peerlink_core::bounded::List;
use peerlink_core::identity::safety_number;
use peerlink_core::ids::{CallerId, MessageRef, Name, PeerId};
use peerlink_core::record::{ContactState, Dropped, Kind};
use peerlink_core::ticket::{Ticket, TicketSecret};
use peerlink_core::time::WallClock;
use peerlink_core::wire::peer_record::Relay;
use peerlink_drivers::Handle;
use peerlink_storage::{ContactInfo, Message, ReadError, Reader, State};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::new(Code::Store, format!("{error}; end the peerlink that runs, then: peerlink repair"))
    }
}

pub(crate) struct Service {
    pub(crate) peer: PeerId,
    pub(crate) handle: Handle,
    pub(crate) reader: Reader,
    pub(crate) hub: Hub,
    pub(crate) relays: Mutex<Vec<Relay>>,
    /// Datagrams are used beside streams.
    pub(crate) udp: bool,
}

/// A subscription that ends with its scope.
pub(crate) struct Watch<'a> {
    hub: &'a Hub,
    pub(crate) number: u64,
    pub(crate) notes: Receiver<Note>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.hub.unsubscribe(self.number);
    }
}

impl Watch<'_> {
    /// The first event that `pick` takes. `None` when the time is over.
    fn wait<T>(
        &self,
        within: Duration,
        mut pick: impl FnMut(Option<&Event>) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let until = crate::clock::monotonic() + within;
        loop {
            let left = until.saturating_sub(crate::clock::monotonic());
            let picked = match self.notes.recv_timeout(left) {
                Ok(Note::Event(event)) => pick(Some(&event)),
                // What was missed may have been the answer: let the caller look at the store.
                Ok(Note::Lagged) => pick(None),
                Ok(Note::Gone) => None,
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(Fault::internal("the node is stopping")),
            };
            if picked.is_some() {
                return Ok(picked);
            }
            if self.hub.store_failed() {
                return Err(Fault::new(Code::Store, Refusal::StoreFailed));
            }
        }
    }
}

impl Service {
    pub(crate) fn watch(&self) -> Watch<'_> {
        let (number, notes) = self.hub.subscribe();
        Watch { hub: &self.hub, number, notes }
    }

    pub(crate) fn answer(&self, request: Request) -> Result<Value, Fault> {
        match request {
            Request::Id => Ok(json!({ "peer": self.peer.to_string(), "nickname": self.nickname()? })),
            Request::Invite { expires_s, addresses } => self.invite(expires_s, addresses),
            Request::Add { ticket, name, timeout_ms } => {
                self.add(&ticket, name.as_deref(), Duration::from_millis(timeout_ms))
            }
            Request::Contacts => {
                let contacts = self.contacts()?;
                Ok(Value::Array(contacts.iter().map(|info| self.contact_json(info)).collect()))
            }
            Request::Rename { contact, name } => {
                let info = self.find(&contact)?;
                let petname = parse_name(&name)?;
                self.change(Command::Rename { peer: info.peer, petname }, info.peer, ContactChange::Renamed)
            }
            Request::Remove { contact } => {
                let info = self.find(&contact)?;
                self.change(Command::Remove { peer: info.peer }, info.peer, ContactChange::Removed)
            }
            Request::Block { contact, blocked } => {
                let info = self.find(&contact)?;
                let change = if blocked { ContactChange::Blocked } else { ContactChange::Unblocked };
                self.change(Command::Block { peer: info.peer, blocked }, info.peer, change)
            }
            Request::Verify { contact, mark } => self.verify(&contact, mark),
            Request::Send { contact, text, message_id, expire, wait, timeout_ms } => {
                let (id, expire) = (message_id.as_deref(), crate::span::expire(expire.as_deref())?);
                let within = (wait == "delivered").then_some(Duration::from_millis(timeout_ms));
                self.send(&contact, text, id, expire, within)
            }
            Request::History { contact, last } => self.history(&contact, last),
            Request::Cancel { contact, message } => self.cancel(&contact, message.as_deref()),
            Request::Delete { contact, message } => self.delete(&contact, message.as_deref()),
            Request::Config { expire, relays, stun } => {
                self.config(expire.as_deref(), relays.as_deref(), stun)
            }
            Request::Examine { contact, within_ms } => {
                self.examine(contact.as_deref(), Duration::from_millis(within_ms))
            }
            Request::Status => self.status(),
            Request::Nickname { nickname } => {
                let nickname = nickname.as_deref().map(parse_name).transpose()?;
                self.profile_change(Command::SetNickname { nickname })
            }
            Request::Listen { .. } => Err(Fault::internal("a stream is not one answer")),
        }
    }

    /// Gives a request to the node; refused ones in the user's words.
    pub(crate) fn command(&self, command: Command) -> Result<(), Fault> {
        match self.handle.command(command) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(refusal(refused.why)),
            Err(_gone) => Err(Fault::internal("the node has stopped")),
        }
    }

    fn change(&self, command: Command, peer: PeerId, change: ContactChange) -> Result<Value, Fault> {
        let watch = self.watch();
        self.command(command)?;
        let done = |event: Option<&Event>| match event {
            Some(Event::ContactChanged { peer: who, change: what }) if *who == peer && *what == change => {
                Some(())
            }
            Some(_) => None,
            None => Some(()),
        };
        watch.wait(DURABLE, done)?.ok_or_else(not_durable)?;
        Ok(json!({ "peer": peer.to_string() }))
    }

    fn profile_change(&self, command: Command) -> Result<Value, Fault> {
        let watch = self.watch();
        self.command(command)?;
        let done = |event: Option<&Event>| {
            (event.is_none() || matches!(event, Some(Event::ProfileChanged))).then_some(())
        };
        watch.wait(DURABLE, done)?.ok_or_else(not_durable)?;
        Ok(json!({}))
    }

    /// These are the home relays from now on.
    pub(crate) fn use_relays(&self, relays: Vec<Relay>) -> Result<(), Fault> {
        self.command(Command::UseRelays { relays: List::of(relays.clone()) })?;
        *self.relays.lock().unwrap_or_else(PoisonError::into_inner) = relays;
        Ok(())
    }

    pub(crate) fn home_relays(&self) -> Vec<Relay> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These servers are asked from where this node is seen, from now on.
    pub(crate) fn use_servers(&self, servers: Vec<SocketAddr>) -> Result<(), Fault> {
        self.command(Command::UseStunServers { servers: List::of(servers) })
    }

    fn config(
        &self,
        expire: Option<&str>,
        relays: Option<&str>,
        stun: Option<Vec<SocketAddr>>,
    ) -> Result<Value, Fault> {
        if let Some(servers) = stun {
            self.use_servers(servers)?;
        }
        if let Some(relays) = relays {
            self.use_relays(crate::profile::parse_relays(relays)?)?;
        }
        if let Some(expire) = expire {
            self.profile_change(Command::SetExpire { after: crate::span::parse_or_never(expire)? })?;
        }
        let expire = self.reader.profile()?.and_then(|profile| profile.expire_ms);
        Ok(json!({ "expire_s": expire.map(|milliseconds| milliseconds / 1000) }))
    }

    fn nickname(&self) -> Result<Option<Name>, Fault> {
        Ok(self.reader.profile()?.and_then(|profile| profile.nickname))
    }

    // --- contacts --------------------------------------------------------------------------------------------

    pub(crate) fn contacts(&self) -> Result<Vec<ContactInfo>, Fault> {
        let mut all = self.reader.contacts()?;
        all.retain(|info| info.contact.state != ContactState::Removed);
        Ok(all)
    }

    /// By petname, by a prefix that only one has, or by PeerId.
    pub(crate) fn find(&self, wanted: &str) -> Result<ContactInfo, Fault> {
        let contacts = self.contacts()?;
        let folded = wanted.to_lowercase();
        let exact = |info: &&ContactInfo| {
            info.contact.petname.as_str().to_lowercase() == folded || info.peer.to_string() == wanted
        };
        if let Some(info) = contacts.iter().find(exact) {
            return Ok(info.clone());
        }
        let begins = |info: &&ContactInfo| info.contact.petname.as_str().to_lowercase().starts_with(&folded);
        let mut matches: Vec<&ContactInfo> = contacts.iter().filter(begins).collect();
        matches.sort_by_key(|info| &info.contact.petname);
        if folded.is_empty() {
            matches.clear();
        }
        let wanted = crate::show::visible(wanted, false);
        match matches.as_slice() {
            [one] => Ok((*one).clone()),
            [] => {
                let hint = if contacts.is_empty() {
                    "you have no contacts yet: peerlink add <ticket>"
                } else {
                    "see: peerlink contacts"
                };
                Err(Fault::new(Code::Contact, format!("no contact is called {wanted:?}; {hint}")))
            }
            many => {
                let names: Vec<&str> = many.iter().map(|info| info.contact.petname.as_str()).collect();
                Err(Fault::new(Code::Contact, format!("{wanted:?} could be {}", names.join(", "))))
            }
        }
    }

    pub(crate) fn contact_json(&self, info: &ContactInfo) -> Value {
        let contact = &info.contact;
        let state = match &contact.state {
            _ if contact.blocked => "blocked",
            ContactState::Pending { .. } => "invited, not answered yet",
            ContactState::Established => "contact",
            ContactState::Refused { .. } => "turned our ticket down",
            ContactState::Removed => "removed",
        };
        json!({
            "name": contact.petname,
            "peer": info.peer.to_string(),
            "nickname": contact.nickname,
            "state": state,
            "blocked": contact.blocked,
            "verified": contact.verified,
            "unread": info.counts.unread,
            "queued": info.counts.queued,
            "missing": info.counts.missing,
            "link": self.hub.link(&info.peer).json(),
        })
    }

    fn invite(&self, expires_s: u64, extra: Vec<SocketAddr>) -> Result<Value, Fault> {
        if !extra.is_empty() {
            let known = self.reader.profile()?.map(|profile| profile.advertised).unwrap_or_default();
            let mut all = extra.clone();
            all.extend(known.iter().filter(|address| !extra.contains(address)));
            self.profile_change(Command::Advertise { addresses: List::of(all) })?;
        }
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(Fault::internal)?;
        let secret = TicketSecret(secret);
        let expires = WallClock(crate::clock::wall_ms().saturating_add(expires_s.saturating_mul(1000)));
        let watch = self.watch();
        self.command(Command::Invite { secret, expires })?;
        let done = |event: Option<&Event>| match event {
            Some(Event::InviteStored { secret: stored }) => (*stored == secret).then_some(()),
            Some(_) => None,
            None => Some(()),
        };
        watch.wait(DURABLE, done)?.ok_or_else(not_durable)?;
        let profile =
            self.reader.profile()?.ok_or_else(|| Fault::internal("the profile record is missing"))?;
        // What a record says may be older than the addresses just given.
        let mut addresses: Vec<SocketAddr> = extra;
        let own = profile.record_addresses.iter().chain(profile.advertised.iter());
        addresses.extend(own.filter(|address| !addresses.contains(address)).copied().collect::<Vec<_>>());
        let ticket = Ticket {
            peer: self.peer,
            secret,
            nickname: profile.nickname,
            expires,
            addresses: List::of(addresses),
            // One is enough to begin, and a ticket should be short.
            relays: List::of(self.home_relays().into_iter().take(1)),
        };
        Ok(json!({ "ticket": ticket.to_string(), "expires_ms": expires.0, "addresses": &*ticket.addresses }))
    }

    fn add(&self, ticket: &str, name: Option<&str>, within: Duration) -> Result<Value, Fault> {
        let ticket: Ticket = ticket.parse().map_err(|error| Fault::usage(format!("{error}")))?;
        let peer = ticket.peer;
        let watch = self.watch();
        let petname = self.add_under_a_free_name(&ticket, name)?;
        let is = |event: Option<&Event>, what: ContactChange| {
            event.is_none_or(|event| *event == Event::ContactChanged { peer, change: what })
        };
        // Durable first: whatever the inviter says, and whenever, the contact is kept.
        let stored = |event: Option<&Event>| is(event, ContactChange::Added).then_some(());
        watch.wait(DURABLE, stored)?.ok_or_else(not_durable)?;
        let mut answer = self.is_established(&peer).then_some(Ok(()));
        if answer.is_none() {
            answer = watch.wait(within, |event| match event {
                Some(Event::ContactChanged { peer: who, change: ContactChange::Refused(why) })
                    if *who == peer =>
                {
                    Some(Err(*why))
                }
                Some(_) if !is(event, ContactChange::Established) => None,
                _ => self.is_established(&peer).then_some(Ok(())),
            })?;
        }
        match answer {
            Some(Ok(())) => Ok(json!({ "name": petname, "peer": peer.to_string(), "answered": true })),
            Some(Err(why)) => Err(Fault::new(Code::Refused, ticket_refusal(why))),
            None => Ok(json!({
                "name": petname,
                "peer": peer.to_string(),
                "answered": false,
                "detail": self.hub.link(&peer).describe(),
            })),
        }
    }

    fn is_established(&self, peer: &PeerId) -> bool {
        let info = self.reader.contact(*peer).ok().flatten();
        info.is_some_and(|info| info.contact.state == ContactState::Established)
    }

    /// Under the given name; without one, under the name of a contact that is known already, or the inviter's
    /// nickname made unlike every other name: the node is the judge of that.
    fn add_under_a_free_name(&self, ticket: &Ticket, name: Option<&str>) -> Result<Name, Fault> {
        let contacts = self.contacts()?;
        let known = contacts.iter().find(|info| info.peer == ticket.peer);
        let text = ticket.peer.to_string();
        let candidates: Vec<Name> = match (name, known) {
            (Some(name), _) => vec![parse_name(name)?],
            (None, Some(known)) => vec![known.contact.petname.clone()],
            (None, None) => {
                let base = ticket.nickname.as_ref().map_or(text.get(..12).unwrap_or_default(), Name::as_str);
                (1..=contacts.len() + 1).filter_map(|n| numbered(base, n)).collect()
            }
        };
        for petname in candidates {
            let command = Command::Add { ticket: Box::new(ticket.clone()), petname: petname.clone() };
            match self.handle.command(command) {
                Ok(Ok(())) => return Ok(petname),
                Ok(Err(refused)) if refused.why == Refusal::NameTaken && name.is_none() => {}
                Ok(Err(refused)) => return Err(refusal(refused.why)),
                Err(_gone) => return Err(Fault::internal("the node has stopped")),
            }
        }
        Err(Fault::usage("give the contact a name with --name"))
    }

    fn verify(&self, contact: &str, mark: Option<bool>) -> Result<Value, Fault> {
        let info = self.find(contact)?;
        if let Some(verified) = mark {
            let change = if verified { ContactChange::Verified } else { ContactChange::Unverified };
            self.change(Command::Verify { peer: info.peer, verified }, info.peer, change)?;
        }
        let verified = mark.unwrap_or(info.contact.verified);
        let number = safety_number(&self.peer, &info.peer);
        Ok(json!({ "name": info.contact.petname, "number": number, "verified": verified }))
    }

    // --- messages --------------------------------------------------------------------------------------------

    /// Writes a message. With `within`, waits so long for what becomes of it.
    fn send(
        &self,
        contact: &str,
        text: String,
        id: Option<&str>,
        expire: Expire,
        within: Option<Duration>,
    ) -> Result<Value, Fault> {
        let info = self.find(contact)?;
        let caller = match id {
            Some(id) => id.parse().map_err(|_| Fault::usage("--id takes 32 hexadecimal digits"))?,
            None => {
                let mut id = [0; 16];
                getrandom::fill(&mut id).map_err(Fault::internal)?;
                CallerId(id)
            }
        };
        let peer = info.peer;
        let watch = self.watch();
        let body = Bytes::from(text);
        self.command(Command::Send { peer, caller, fresh: id.is_none(), expire, body })?;
        let known = || self.by_caller(&info, caller);
        let queued = watch.wait(DURABLE, |event| match event {
            Some(Event::Queued { peer: who, caller: what, message, duplicate, .. })
                if *who == peer && *what == caller =>
            {
                let state = if *duplicate { known().map(|(_, state)| state) } else { None };
                Some(Ok((*message, state.unwrap_or(State::Queued))))
            }
            Some(Event::SendFailed { peer: who, caller: what, why }) if *who == peer && *what == caller => {
                Some(Err(*why))
            }
            Some(_) => None,
            None => known().map(Ok),
        })?;
        let (mut message, mut state) = queued.ok_or_else(not_durable)?.map_err(refusal)?;
        if let Some(within) = within.filter(|_| state == State::Queued) {
            let became = watch.wait(within, |event| match event {
                // It gets another name if it turns out that this store was rolled back.
                Some(Event::Reissued { peer: who, old, new }) if *who == peer && *old == message => {
                    message = *new;
                    None
                }
                Some(Event::Delivered { peer: who, epoch, first, last }) => {
                    let covers =
                        *who == peer && *epoch == message.epoch && (*first..=*last).contains(&message.seq);
                    covers.then_some(State::Delivered)
                }
                Some(Event::Expired { peer: who, message: what }) => {
                    (*who == peer && *what == message).then_some(State::Expired)
                }
                Some(Event::Dropped { peer: who, message: what, cancelled: true }) => {
                    (*who == peer && *what == message).then_some(State::Cancelled)
                }
                Some(_) => None,
                None => known().map(|(_, state)| state).filter(|state| *state != State::Queued),
            })?;
            state = became.unwrap_or(State::Queued);
        }
        Ok(json!({
            "contact": info.contact.petname,
            "message": message.to_string(),
            "message_id": caller.to_string(),
            "state": state_word(state),
            "detail": self.hub.link(&peer).describe(),
        }))
    }

    fn cancel(&self, contact: &str, message: Option<&str>) -> Result<Value, Fault> {
        let info = self.find(contact)?;
        let message = match message {
            Some(message) => {
                let message = parse_message(message)?;
                let known = self.reader.message(info.contact.conversation, message)?;
                match known.map(|known| known.state) {
                    Some(State::Expired) => {
                        return Err(Fault::new(Code::Refused, "it expired before it was delivered"));
                    }
                    Some(State::Cancelled) => {
                        return Err(Fault::new(Code::Refused, "it is taken back already"));
                    }
                    Some(State::Queued | State::Delivered | State::Received) | None => message,
                }
            }
            None => {
                let said = self.reader.latest(info.contact.conversation, crate::limits::PAGE)?;
                let waits = said.iter().rev().find(|said| said.mine && said.state == State::Queued);
                let none =
                    || Fault::new(Code::Refused, "nothing waits for this contact that could be taken back");
                waits.ok_or_else(none)?.message
            }
        };
        self.drop_message(Command::Cancel { peer: info.peer, message }, info.peer, message)
    }

    fn delete(&self, contact: &str, message: Option<&str>) -> Result<Value, Fault> {
        let info = self.find(contact)?;
        let peer = info.peer;
        let Some(message) = message else {
            let watch = self.watch();
            self.command(Command::DeleteConversation { peer })?;
            let gone = |event: Option<&Event>| match event {
                Some(Event::ConversationDeleted { peer: who }) => (*who == peer).then_some(()),
                Some(_) => None,
                None => self.reader.latest(info.contact.conversation, 1).ok()?.is_empty().then_some(()),
            };
            watch.wait(DURABLE, gone)?.ok_or_else(not_durable)?;
            return Ok(json!({ "contact": info.contact.petname, "deleted": "all" }));
        };
        let message = parse_message(message)?;
        self.drop_message(Command::Delete { peer, message }, peer, message)
    }

    fn drop_message(&self, command: Command, peer: PeerId, message: MessageRef) -> Result<Value, Fault> {
        let watch = self.watch();
        self.command(command)?;
        let dropped = watch.wait(DURABLE, |event| match event {
            Some(Event::Dropped { peer: who, message: what, cancelled })
                if *who == peer && *what == message =>
            {
                Some(Ok(*cancelled))
            }
            Some(Event::DropFailed { peer: who, message: what, why: Refusal::StoreFailed })
                if *who == peer && *what == message =>
            {
                Some(Err(Fault::new(Code::Store, "this message cannot be read from the store")))
            }
            Some(Event::DropFailed { peer: who, message: what, why }) if *who == peer && *what == message => {
                Some(Err(refusal(*why)))
            }
            Some(_) | None => None,
        })?;
        let cancelled = dropped.ok_or_else(not_durable)??;
        let done = if cancelled { "cancelled" } else { "deleted" };
        Ok(json!({ "message": message.to_string(), "state": done }))
    }

    fn by_caller(&self, info: &ContactInfo, caller: CallerId) -> Option<(MessageRef, State)> {
        let message = self.reader.by_caller(info.contact.conversation, caller).ok()??;
        Some((message.message, message.state))
    }

    fn history(&self, contact: &str, last: usize) -> Result<Value, Fault> {
        let info = self.find(contact)?;
        let mut pages: Vec<Vec<Message>> = Vec::new();
        let mut left = last;
        let mut page = self.reader.latest(info.contact.conversation, left.min(crate::limits::PAGE))?;
        while let Some(oldest) = page.first().map(|message| message.order) {
            left -= page.len().min(left);
            pages.push(page);
            if left == 0 {
                break;
            }
            page = self.reader.before(oldest, left.min(crate::limits::PAGE))?;
        }
        let shown = pages.iter().flatten().filter(|message| !message.mine).count();
        if info.counts.unread > 0 && u64::try_from(shown).is_ok_and(|shown| shown >= info.counts.unread) {
            self.mark_read(info.peer, info.counts.received);
        }
        let messages = pages.into_iter().rev().flatten();
        let messages = messages.filter(|message| matches!(message.kind, Kind::Text | Kind::Tombstone));
        let name = info.contact.petname.as_str();
        Ok(Value::Array(messages.map(|message| message_json(&message, name)).collect()))
    }

    /// The user has seen everything that was received up to now in this conversation.
    pub(crate) fn mark_read(&self, peer: PeerId, ordinal: u64) {
        // Not worth failing for: it is marked at the next look.
        let _later = self.command(Command::MarkRead { peer, ordinal });
    }

    pub(crate) fn status(&self) -> Result<Value, Fault> {
        let contacts = self.contacts()?;
        let stats = self.handle.stats();
        let listen: Vec<String> = self.handle.listen_addresses().iter().map(ToString::to_string).collect();
        let profile = self.reader.profile()?;
        let reachable: Vec<String> = profile
            .map(|profile| profile.record_addresses.iter().map(ToString::to_string).collect())
            .unwrap_or_default();
        Ok(json!({
            "peer": self.peer.to_string(),
            "ready": self.hub.is_ready(),
            "listen": listen,
            "reachable": reachable,
            "mapped": self.hub.mapped(),
            "relays": self.home_relays().iter().map(|relay| json!({
                "relay": relay.to_string(),
                "link": self.hub.link(&relay.peer).json(),
            })).collect::<Vec<_>>(),
            "seen": self.hub.seen().map(|seen| seen.json()),
            "relayed": stats.forwarded,
            "not_relayed": stats.not_forwarded,
            "contacts": contacts.iter().map(|info| self.contact_json(info)).collect::<Vec<_>>(),
            "turned_away": {
                "not_for_us": stats.rejected_not_for_us,
                "bad_handshake": stats.rejected_bad_handshake,
                "slow": stats.rejected_slow,
                "half_open": stats.rejected_half_open,
                "stranger": stats.rejected_stranger,
                "ticket": stats.rejected_ticket,
                "blocked": stats.rejected_blocked,
            },
            "misbehaved": stats.misbehaved,
            "sessions": stats.sessions,
            "sent": stats.entries_sent,
            "received": stats.entries_received,
            "duplicates_ignored": stats.duplicates,
        }))
    }
}

const fn state_word(state: State) -> &'static str {
    match state {
        State::Queued => "queued",
        State::Delivered => "delivered",
        State::Cancelled => "cancelled",
        State::Expired => "expired",
        State::Received => "received",
    }
}

pub(crate) fn message_json(message: &Message, contact: &str) -> Value {
    json!({
        "contact": contact,
        "mine": message.mine,
        "message": message.message.to_string(),
        "message_id": message.caller.to_string(),
        "text": String::from_utf8_lossy(&message.body),
        "state": state_word(message.state),
        "claimed_ms": message.claimed.0,
        "arrival": message.arrival,
        "missing_before": message.missing_before,
        "recovered": message.recovered,
        "taken_away": message.dropped.map(|why| match why {
            Dropped::Cancelled { .. } => "cancelled".to_owned(),
            Dropped::Expired { .. } => "expired".to_owned(),
            Dropped::Deleted => "deleted".to_owned(),
            Dropped::ByAuthor => "taken back".to_owned(),
            Dropped::Gone { first } => {
                format!("{} gone", message.message.seq.saturating_sub(first).saturating_add(1))
            }
        }),
    })
}

fn parse_name(text: &str) -> Result<Name, Fault> {
    let most = peerlink_core::limits::NAME_BYTES;
    Name::new(text).map_err(|_| {
        Fault::usage(format!(
            "a name has 1 to {most} bytes, no invisible characters, and no space at its ends"
        ))
    })
}

/// `base`, or `base-2` and so on, cut to fit.
fn numbered(base: &str, n: usize) -> Option<Name> {
    let suffix = if n == 1 { String::new() } else { format!("-{n}") };
    let room = peerlink_core::limits::NAME_BYTES.saturating_sub(suffix.len());
    let cut = (0..=room.min(base.len())).rev().find(|at| base.is_char_boundary(*at))?;
    Name::new(&format!("{}{suffix}", base.get(..cut)?.trim_end())).ok()
}

fn parse_message(text: &str) -> Result<MessageRef, Fault> {
    text.parse().map_err(|_| Fault::usage("a message is named as in \"message\" of peerlink history --json"))
}

fn not_durable() -> Fault {
    Fault::new(
        Code::NotReached,
        "the disk did not confirm it in time; it may or may not be stored: look with peerlink history or status",
    )
}

fn refusal(why: Refusal) -> Fault {
    let code = match why {
        Refusal::UnknownContact => Code::Contact,
        Refusal::UnknownMessage
        | Refusal::Empty
        | Refusal::TooLong
        | Refusal::NotText
        | Refusal::OwnTicket
        | Refusal::NameTaken => Code::Usage,
        Refusal::Delivered
        | Refusal::QueueFull
        | Refusal::Busy
        | Refusal::TooManyContacts
        | Refusal::TooManyInvites
        | Refusal::Stopping => Code::Refused,
        Refusal::StoreFailed => Code::Store,
    };
    Fault::new(code, why)
}

fn ticket_refusal(why: TicketRefusal) -> &'static str {
    match why {
        TicketRefusal::Unknown => {
            "the inviter does not know this ticket (it may have expired): ask for a new one"
        }
        TicketRefusal::Expired => "this ticket has expired: ask for a new one",
        TicketRefusal::Spent => "somebody else used this ticket already: ask for a new one",
        TicketRefusal::Full => "the inviter has no room for another contact",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_fits_behind_any_name() {
        assert_eq!(numbered("Bob", 1).unwrap().as_str(), "Bob");
        assert_eq!(numbered("Bob", 12).unwrap().as_str(), "Bob-12");
        let long = "ä".repeat(16);
        assert_eq!(numbered(&long, 1).unwrap().as_str(), long);
        assert_eq!(numbered(&long, 2).unwrap().as_str(), format!("{}-2", "ä".repeat(15)));
    }
}
