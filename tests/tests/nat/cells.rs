//! Real processes behind real boxes: who can reach whom, by the table of the oracle.
//!
//! The table is laid out whole. What the program has no means for yet is not tried, and named in what is reported:
//! so far it dials streams and nothing else, and reaches whoever has a public address.

use crate::lab::{Lab, Site, alone, within};
use crate::people::{Person, Process, answer, ask_until, introduce, judge, settle};
use crate::rules::Rules;
use peerlink_sim::nat::oracle::{Way, expected};
use peerlink_sim::nat::{Class, Class::*};
use serde_json::json;
use std::fs;
use std::net::SocketAddr;

/// Where somebody is: the boxes from the internet inward, and the class that they make.
pub(crate) const PLACES: [(&str, &[Rules], Class); 10] = [
    ("open", &[Rules::Open], Open),
    ("firewall", &[Rules::Firewall], Home),
    ("full cone", &[Rules::FullCone], Cone),
    ("restricted", &[Rules::Restricted], Adf),
    ("masquerade", &[Rules::Masquerade], Home),
    ("two boxes", &[Rules::Masquerade, Rules::Masquerade], Home),
    ("naive", &[Rules::Naive], Naiv),
    ("fully random", &[Rules::FullyRandom], Hard),
    ("without udp", &[Rules::UdpDropped], Nudp),
    ("web only", &[Rules::WebOnly], T443),
];
/// Where everybody listens, and where who can be reached by the web alone listens as well.
const PORTS: [u16; 2] = [4711, 443];
const MESSAGES: usize = 3;
/// Two hosts side by side behind one box, which turns packets back or does not.
const NEIGHBOURS: [(&str, Rules); 2] =
    [("neighbours", Rules::Masquerade), ("neighbours with hairpin", Rules::TurningBack)];

/// A host of a site.
type Seat<'a> = (&'a Site, usize);

/// Whether the program can already do that: dial a stream to who is in the open.
fn can(way: Way, to: Class) -> bool {
    matches!(way, Way::Direct | Way::DirectTcp | Way::Direct443) && to == Open
}

#[test]
fn real_processes_reach_each_other_where_the_oracle_says_so() {
    alone("cells", "cells::inside");
}

#[test]
#[ignore = "run by the test above, in namespaces of its own"]
fn inside() {
    let Some(lab) = Lab::enter() else { return };
    let places: Vec<Site> = PLACES.iter().enumerate().map(|(at, place)| lab.site(at + 1, place.1)).collect();
    // Somebody else in the open, for who is there as well.
    let other = lab.site(50, &[Rules::Open]);
    let (mut ran, mut waiting) = (Vec::new(), 0);
    for (from, to) in (0..PLACES.len()).flat_map(|from| (0..PLACES.len()).map(move |to| (from, to))) {
        let way = expected(PLACES[from].2, PLACES[to].2);
        if !can(way, PLACES[to].2) {
            waiting += 1;
            continue;
        }
        let to_site = if from == to { &other } else { &places[to] };
        let dir = lab.dir.join(format!("{from}-{to}"));
        let found = talk([(to_site, 0), (&places[from], 0)], &dir);
        assert_eq!(found, Ok(()), "{} to {}", PLACES[from].0, PLACES[to].0);
        ran.push(format!("{} to {} {}", PLACES[from].0, PLACES[to].0, way.code()));
    }
    for (at, (name, rules)) in NEIGHBOURS.into_iter().enumerate() {
        let site = lab.site(51 + at, &[rules]);
        let found = talk([(&site, 0), (&site, 1)], &lab.dir.join(format!("neighbours-{at}")));
        assert_eq!(found, Ok(()), "{name}");
        ran.push(format!("{name} D"));
    }
    let web = &places[PLACES.len() - 1];
    let control = control([(&other, 0), (web, 0)], &lab.dir.join("control"));
    println!("RAN cells: {}; {waiting} wait for other means; control: {control}", ran.join(", "));
}

/// A person at a host of a site.
fn person((site, seat): Seat<'_>, name: &'static str, dir: &std::path::Path, ports: &[u16]) -> Person {
    let dir = dir.join(name);
    fs::create_dir_all(dir.parent().unwrap()).unwrap();
    let person = Person { name, dir, promised: Vec::new() };
    let listen = ports.iter().map(|port| SocketAddr::new(site.v4[seat], *port).to_string());
    let mut args = vec!["init".to_owned(), "--nickname".to_owned(), name.to_owned()];
    listen.for_each(|listen| args.extend(["--listen".to_owned(), listen]));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let made = within(&site.hosts[seat], || person.run(&args));
    assert!(made.status.success(), "{made:?}");
    person
}

fn up((site, seat): Seat<'_>, person: &Person) -> Process {
    within(&site.hosts[seat], || person.up())
}

/// The second is invited by the first, both write, and both histories are compared when everything is said to have been
/// delivered.
fn talk([to, from]: [Seat<'_>; 2], dir: &std::path::Path) -> Result<(), String> {
    let mut persons = [person(to, "alice", dir, &PORTS), person(from, "bob", dir, &PORTS[..1])];
    let running = [up(to, &persons[0]), up(from, &persons[1])];
    introduce(&persons);
    for person in &mut persons {
        person.write(MESSAGES, || true);
    }
    settle(&persons);
    drop(running);
    judge(&persons)?;
    // The same verdict must find one that was promised and never came.
    persons[1].promised.push("never written".to_owned());
    judge(&persons).map_or(Ok(()), |()| Err("the judge is blind".to_owned()))
}

/// Who may only use the web does not reach who does not listen there: the boxes hold.
fn control([to, from]: [Seat<'_>; 2], dir: &std::path::Path) -> &'static str {
    let persons = [person(to, "alice", dir, &PORTS[..1]), person(from, "bob", dir, &PORTS[..1])];
    let _running = [up(to, &persons[0]), up(from, &persons[1])];
    let invite = json!({ "do": "invite", "expires_s": 3600, "addresses": [] });
    let ticket = ask_until(&persons[0].dir, &invite)["ticket"].clone();
    ask_until(&persons[1].dir, &json!({ "do": "contacts" }));
    let add = json!({ "do": "add", "ticket": ticket, "name": "peer", "timeout_ms": 1_500 });
    let answer = answer(&persons[1].dir, &add).unwrap();
    assert_ne!(answer["ok"]["answered"], true, "{answer}");
    let met = ask_until(&persons[0].dir, &json!({ "do": "contacts" }));
    assert_eq!(met, json!([]));
    "a blocked port is not reached"
}
