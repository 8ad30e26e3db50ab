//! `peerlink doctor`: how this node, or a contact, is reached; what was tried and why it failed; what would help.

use crate::fault::{Code, Fault};
use crate::hub::{Note, path_word};
use crate::service::Service;
use peerlink_core::api::{Command, Event, NatFiltering, NatMapping};
use peerlink_core::ids::PeerId;
use peerlink_core::record::{Contact, ContactState};
use peerlink_core::wire::peer_record::PeerRecord;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// By how much a contact's clock may be ahead of ours before that is worth a word, in milliseconds.
const CLOCK_OFF_MS: u64 = 5 * 60 * 1000;

/// What is known of how this node is reached.
#[derive(Debug, Clone)]
struct Surroundings {
    udp: bool,
    /// What others are told.
    told: Vec<SocketAddr>,
    mapping: NatMapping,
    filtering: NatFiltering,
    /// Somebody could be asked where we are seen.
    asked: bool,
    /// Home relays, and whether they serve us.
    relays: Vec<(String, bool)>,
    port: u16,
    /// A contact whose clock is ahead of ours, and by how much.
    clock: Option<(String, u64)>,
}

/// What is known of how a contact is reached.
#[derive(Debug, Clone, Default)]
struct Way {
    name: String,
    /// The way that is in use.
    path: Option<String>,
    pending: bool,
    refused: bool,
    blocked: bool,
    addresses: usize,
    relays: usize,
    /// What came of the tries: the outcomes that there were.
    outcomes: BTreeSet<String>,
}

/// Whether somebody anywhere can send there.
fn is_public(address: &SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && b & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || shared)
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}

/// What boxes between here and there do, in words.
fn router_words(mapping: NatMapping, filtering: NatFiltering) -> String {
    let seen = match mapping {
        NatMapping::Unknown => {
            return "nobody answered by UDP, so it is not known what stands between".into();
        }
        NatMapping::None => "no router translates your address",
        NatMapping::Translated => "a router translates your address; a second relay would tell how",
        NatMapping::EndpointIndependent => {
            "a router translates your address, to the same one whoever you speak to: two like you meet directly"
        }
        NatMapping::EndpointDependent => {
            "a router gives you another outside port for everybody you speak to: two like you need a relay"
        }
    };
    let lets_in = match filtering {
        NatFiltering::Unknown => return seen.into(),
        NatFiltering::EndpointIndependent => "anybody's packets are let in",
        NatFiltering::AddressDependent => "packets are let in from machines that you spoke to",
        NatFiltering::AddressAndPortDependent => "packets are let in from ports that you spoke to",
    };
    format!("{seen}; {lets_in}")
}

impl Surroundings {
    /// Nobody who should answer does.
    fn is_cut_off(&self) -> bool {
        !self.relays.is_empty()
            && self.relays.iter().all(|(_, up)| !up)
            && self.mapping == NatMapping::Unknown
    }

    /// What would help, most useful first.
    fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let public = self.told.iter().any(is_public);
        let serving = self.relays.iter().filter(|(_, up)| *up).count();
        let port = self.port;
        if self.relays.is_empty() && !public {
            advice.push(
                "People outside your network cannot reach you. Name a relay (somebody's peerlink relay): peerlink \
                 config relays PEER@ADDRESS:PORT"
                    .to_owned(),
            );
        }
        if self.is_cut_off() {
            advice.push("No relay answers you, by UDP or by TCP: is this machine online?".to_owned());
        }
        for (relay, _) in self.relays.iter().filter(|(_, up)| !up) {
            advice
                .push(format!("The relay {relay} does not answer: is it running, and is this its address?"));
        }
        if serving == 1 && self.relays.len() == 1 && !public {
            advice.push("You depend on one relay. A second keeps you reachable when it is away.".to_owned());
        }
        if self.udp && self.asked && self.mapping == NatMapping::Unknown && serving > 0 {
            advice.push(
                "UDP seems to be blocked here. TCP is used; who has only UDP as well needs a relay."
                    .to_owned(),
            );
        }
        if !self.udp {
            advice.push(
                "UDP is switched off, so nobody is met through routers: peerlink config udp on".to_owned(),
            );
        }
        if self.mapping == NatMapping::EndpointDependent && !public {
            advice.push(format!(
                "If you may set up your router: forward port {port} (TCP and UDP) to this machine, and invite with \
                 --addr PUBLIC-ADDRESS:{port}"
            ));
        }
        if let Some((name, ahead_ms)) = &self.clock {
            advice.push(format!(
                "Your clock is {} behind {name}'s, or that one is ahead. Nothing is lost by it; times that you see may \
                 be wrong.",
                crate::span::spoken(Duration::from_secs(ahead_ms / 1000))
            ));
        }
        advice
    }
}

impl Way {
    /// Why it is as it is, and what would help.
    fn advice(&self, here: &Surroundings) -> Vec<String> {
        let name = &self.name;
        if self.blocked {
            return vec![format!("You blocked {name}: peerlink block {name} --undo")];
        }
        if self.refused {
            return vec![format!("{name} turned your ticket down: ask for a new one.")];
        }
        if let Some(path) = &self.path {
            return match path.as_str() {
                "relay" => vec![format!(
                    "Messages go through a relay, which cannot read them. A direct way is taken as soon as one opens: \
                     one of you with an address that can be reached is enough."
                )],
                _ => Vec::new(),
            };
        }
        let mut advice = Vec::new();
        if here.is_cut_off() {
            // Then nothing is shown about the other side.
            advice.push("What you send is kept and goes out by itself as soon as there is a way.".to_owned());
            return advice;
        }
        if self.addresses == 0 && self.relays == 0 {
            advice.push(format!("{name}'s ticket names neither an address nor a relay: ask for a new one."));
        }
        let any = |outcome: &str| self.outcomes.contains(outcome);
        if any("nobody listens there") {
            advice.push(format!("A machine answers and peerlink does not run there: {name} may be away."));
        }
        if any("something else answers there") {
            advice.push(format!(
                "Somebody else has one of {name}'s addresses now. Messages wait for {name} alone."
            ));
        }
        if any("no answer") || any("no route there") {
            advice.push(format!("{name} is away, or somewhere that lets nobody in."));
        }
        if self.relays == 0 && self.addresses > 0 {
            advice.push(format!("{name} names no relay. With one, {name} could be reached from anywhere."));
        }
        if self.pending {
            advice.push(format!("{name} has not answered your ticket yet. It is tried until then."));
        }
        advice.push("What you send is kept and goes out by itself as soon as there is a way.".to_owned());
        advice
    }
}

impl Service {
    /// Looks around, and at the way to a contact, anew.
    pub(crate) fn examine(&self, contact: Option<&str>, within: Duration) -> Result<Value, Fault> {
        let info = contact.map(|contact| self.find(contact)).transpose()?;
        let watch = self.watch();
        let mut tries: Vec<Value> = Vec::new();
        let relays = self.home_relays();
        match &info {
            Some(info) => self.command(Command::Reach { peer: info.peer })?,
            None => self.use_relays(relays.clone())?,
        }
        let until = crate::clock::monotonic() + within;
        let (mut raced, mut heard) = (false, BTreeSet::new());
        loop {
            let around = self.udp && !relays.is_empty() && self.hub.seen().is_none()
                || relays.iter().any(|relay| !heard.contains(&relay.peer));
            let way = info.as_ref().is_some_and(|info| {
                !heard.contains(&info.peer) && (!raced || self.hub.link(&info.peer).is_connected())
            });
            let left = until.saturating_sub(crate::clock::monotonic());
            if !(around || way) || left.is_zero() {
                break;
            }
            match watch.notes.recv_timeout(left) {
                Ok(Note::Event(event)) => match (*event, &info) {
                    (Event::Attempt { peer, remote, path, outcome }, Some(info)) if peer == info.peer => {
                        let outcome = crate::hub::outcome_words(outcome);
                        tries.push(json!({ "remote": remote, "path": path_word(path), "outcome": outcome }));
                    }
                    (Event::RoundTrip { peer, .. }, _) => drop(heard.insert(peer)),
                    // The race is over when the next is set.
                    (Event::NextAttempt { peer, .. }, Some(info)) => raced |= peer == info.peer,
                    _ => {}
                },
                Ok(Note::Lagged | Note::Gone) => {}
                Err(_) => break,
            }
        }
        let mut facts = self.status()?;
        let here = self.surroundings(&heard)?;
        let answers = info.as_ref().is_some_and(|info| heard.contains(&info.peer));
        let mut advice = here.advice();
        let router = router_words(here.mapping, here.filtering);
        if let Some(info) = &info {
            let way = self.way(&info.peer, &info.contact, &tries, answers);
            let words = way.advice(&here);
            // About a contact that is reached, only that is of interest.
            advice.retain(|_| way.path.is_none());
            let at = if here.is_cut_off() { advice.len() } else { 0 };
            advice.splice(at..at, words);
            let mut found = self.contact_json(info);
            if let Some(found) = found.as_object_mut() {
                let all = info.contact.ticket_addresses.iter().chain(info.contact.record_addresses.iter());
                found.insert("addresses".into(), json!(all.collect::<BTreeSet<_>>()));
                let relays: Vec<String> = info.contact.relays.iter().map(ToString::to_string).collect();
                found.insert("relays".into(), json!(relays));
                found.insert("tries".into(), json!(tries));
                found.insert("answers".into(), json!(answers));
            }
            if let Some(facts) = facts.as_object_mut() {
                facts.insert("contact".into(), found);
            }
        }
        if let Some(facts) = facts.as_object_mut() {
            facts.insert("router".into(), json!(router));
            facts.insert("advice".into(), json!(advice));
        }
        Ok(facts)
    }

    /// `heard`: who answered just now.
    fn surroundings(&self, heard: &BTreeSet<PeerId>) -> Result<Surroundings, Fault> {
        let told =
            self.reader.profile()?.map(|profile| profile.record_addresses.to_vec()).unwrap_or_default();
        let seen = self.hub.seen();
        let relays =
            self.home_relays().into_iter().map(|relay| (relay.to_string(), heard.contains(&relay.peer)));
        Ok(Surroundings {
            udp: self.udp,
            told,
            asked: seen.is_some(),
            mapping: seen.as_ref().map_or(NatMapping::Unknown, |seen| seen.mapping),
            filtering: seen.as_ref().map_or(NatFiltering::Unknown, |seen| seen.filtering),
            relays: relays.collect(),
            port: self.handle.listen_addresses().first().map_or(0, SocketAddr::port),
            clock: self.clock_off()?,
        })
    }

    /// A contact who signed where he is at a time that is still to come here. The other way round shows nothing: what he
    /// signed may be old.
    fn clock_off(&self) -> Result<Option<(String, u64)>, Fault> {
        let now = crate::clock::wall_ms();
        let off = self.contacts()?.into_iter().filter_map(|info| {
            let record = PeerRecord::open(&info.peer, &info.contact.record).ok()?;
            let ahead = record.issued.0.saturating_sub(now);
            (ahead > CLOCK_OFF_MS).then(|| (info.contact.petname.to_string(), ahead))
        });
        Ok(off.max_by_key(|(_, ahead)| *ahead))
    }

    fn way(&self, peer: &PeerId, contact: &Contact, tries: &[Value], answers: bool) -> Way {
        let outcomes = tries.iter().filter_map(|one| one.get("outcome")?.as_str().map(str::to_owned));
        Way {
            name: contact.petname.to_string(),
            path: self.hub.link(peer).path().filter(|_| answers).map(|path| path_word(path).to_owned()),
            pending: matches!(contact.state, ContactState::Pending { .. }),
            refused: matches!(contact.state, ContactState::Refused { .. }),
            blocked: contact.blocked,
            addresses: contact.ticket_addresses.len() + contact.record_addresses.len(),
            relays: contact.relays.len(),
            outcomes: outcomes.collect(),
        }
    }
}

fn is(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or_default()
}

/// The report, as lines for people.
fn report(facts: &Value, running: bool) -> Vec<String> {
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |value: &Value, name: &str| -> Vec<Value> {
        value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let joined = |value: &Value, name: &str| {
        let all: Vec<String> =
            list(value, name).iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    };
    let mut lines = vec![
        format!(
            "Listening on    {}{}",
            joined(facts, "listen"),
            if running { "" } else { " (for this look alone)" }
        ),
        format!("Others are told {}", joined(facts, "reachable")),
    ];
    if let Some(seen) = facts.get("seen").filter(|seen| !seen.is_null()) {
        let seen = joined(seen, "addresses");
        lines.push(format!("You are seen at {}", if seen == "nothing" { "not known" } else { &seen }));
        lines.push(format!("On the way      {}", text(facts, "router")));
    } else {
        lines.push("You are seen at not known: no relay and no STUN server was asked".to_owned());
    }
    for relay in list(facts, "relays") {
        let link = relay.get("link").cloned().unwrap_or_default();
        lines.push(format!("Relay           {}: {}", text(&relay, "relay"), text(&link, "detail")));
    }
    if let Some(contact) = facts.get("contact") {
        let link = contact.get("link").cloned().unwrap_or_default();
        lines.push(String::new());
        let name = crate::show::visible(&text(contact, "name"), false);
        let silent = is(&link, "connected") && !is(contact, "answers");
        let answer = if silent { ", and does not answer" } else { "" };
        lines.push(format!("{name}: {}{answer}", text(&link, "detail")));
        lines.push(format!("  known at        {}", joined(contact, "addresses")));
        lines.push(format!("  through relays  {}", joined(contact, "relays")));
        for one in list(contact, "tries") {
            let by = match text(&one, "path").as_str() {
                "udp" => "by UDP",
                "relay" => "through the relay",
                _ => "by TCP",
            };
            lines.push(format!("  tried           {} {by}: {}", text(&one, "remote"), text(&one, "outcome")));
        }
    }
    let advice = list(facts, "advice");
    if !advice.is_empty() {
        lines.push(String::new());
    }
    for words in advice {
        lines.push(format!("* {}", crate::show::visible(words.as_str().unwrap_or_default(), false)));
    }
    lines
}

/// Prints it. A contact that is not reached is exit code 4, for scripts.
pub(crate) fn show(facts: Value, running: bool, json: bool) -> Result<(), Fault> {
    let reached = facts.get("contact").is_none_or(|contact| is(contact, "answers"));
    if json {
        crate::commands::ndjson(facts);
    } else {
        for line in report(&facts, running) {
            crate::commands::line(&line);
        }
    }
    if reached { Ok(()) } else { Err(Fault::new(Code::NotReached, "the contact is not reached now")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn here() -> Surroundings {
        Surroundings {
            udp: true,
            told: vec![at("192.168.1.5:7000")],
            mapping: NatMapping::EndpointIndependent,
            filtering: NatFiltering::Unknown,
            asked: true,
            relays: vec![("peer1a@203.0.113.1:443".into(), true), ("peer1b@203.0.113.2:443".into(), true)],
            port: 7000,
            clock: None,
        }
    }

    fn has(advice: &[String], word: &str) -> bool {
        advice.iter().any(|words| words.contains(word))
    }

    #[test]
    fn who_is_well_off_gets_no_advice() {
        assert_eq!(here().advice(), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_else() {
        let alone = Surroundings { relays: Vec::new(), ..here() };
        assert!(has(&alone.advice(), "config relays") && alone.advice().len() == 1);
        let public = Surroundings { told: vec![at("198.51.100.1:7000")], ..alone };
        assert!(public.advice().is_empty(), "who has a public address needs no relay");
        let mut down = here();
        down.relays[1].1 = false;
        assert!(has(&down.advice(), "peer1b@203.0.113.2:443") && down.advice().len() == 1);
        let blocked = Surroundings { mapping: NatMapping::Unknown, ..here() };
        assert!(has(&blocked.advice(), "UDP seems to be blocked"));
        let unasked = Surroundings { asked: false, ..blocked };
        assert!(unasked.advice().is_empty(), "nobody was asked: nothing is known");
        let hard = Surroundings { mapping: NatMapping::EndpointDependent, ..here() };
        assert!(has(&hard.advice(), "forward port 7000"));
        let late = Surroundings { clock: Some(("Bob".into(), 7_200_000)), ..here() };
        assert!(has(&late.advice(), "behind Bob's"));
    }

    #[test]
    fn why_a_contact_is_not_reached_is_said_in_words() {
        let way = Way { name: "Bob".into(), addresses: 1, relays: 1, ..Way::default() };
        let with = |outcome: &str| Way { outcomes: BTreeSet::from([outcome.to_owned()]), ..way.clone() };
        assert!(has(&with("nobody listens there").advice(&here()), "peerlink does not run there"));
        assert!(has(&with("something else answers there").advice(&here()), "Somebody else has"));
        assert!(has(&with("no answer").advice(&here()), "lets nobody in"));
        let nowhere = Way { addresses: 0, relays: 0, ..way.clone() };
        assert!(has(&nowhere.advice(&here()), "neither an address nor a relay"));
        let relays = vec![("peer1a@203.0.113.1:443".into(), false)];
        let offline = Surroundings { relays, mapping: NatMapping::Unknown, ..here() };
        assert!(has(&offline.advice(), "is this machine online?") && !has(&offline.advice(), "UDP seems"));
        let silent = with("no answer");
        assert!(!has(&silent.advice(&offline), "away"), "nothing is said of who may be well");
        assert!(has(&silent.advice(&here()), "away"));
        let reached = Way { path: Some("tcp".into()), ..way.clone() };
        assert!(reached.advice(&here()).is_empty());
        let relayed = Way { path: Some("relay".into()), ..way };
        assert!(has(&relayed.advice(&here()), "cannot read them"));
    }

    #[test]
    fn only_addresses_that_anybody_can_send_to_are_public() {
        for address in
            ["10.0.0.1:1", "100.64.0.1:1", "169.254.1.1:1", "127.0.0.1:1", "[fd00::1]:1", "[fe80::1]:1"]
        {
            assert!(!is_public(&at(address)), "{address}");
        }
        assert!(is_public(&at("198.51.100.1:1")) && is_public(&at("[2001:db8::1]:1")));
    }
}
