//! One function for each command of the command line.

use crate::args::{Args, Command, Setting, Wait};
use crate::client::Session;
use crate::fault::{Code, Fault};
use crate::limits::{EXAMINE, HISTORY_LAST, INVITE_EXPIRES, SMALL_FILE_BYTES, TRIES_SHOWN, WAIT};
use crate::profile::{Profile, Settings};
use crate::proto::Request;
use crate::show::{message, notice, visible};
use crate::talk::{Follow, What};
use serde_json::{Value, json};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

/// Writes a line to standard output; a reader that went away ends the program quietly.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints a value as NDJSON.
pub(crate) fn ndjson(value: Value) {
    let mut value = value;
    if let Some(object) = value.as_object_mut() {
        object.insert("v".into(), json!(1));
    }
    line(&value.to_string());
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or_default()
}

pub(crate) fn run(args: Args) -> Result<(), Fault> {
    if let Command::Demo = args.command {
        return crate::demo::run(args.json);
    }
    let profile = Profile::find(args.profile)?;
    let new = profile.init()?;
    let json = args.json;
    let until_told = matches!(
        args.command,
        Command::Up { .. } | Command::Relay { .. } | Command::Listen { .. } | Command::Chat { .. }
    );
    crate::signals::end_in_good_order(until_told)?;
    if new && !json {
        eprintln!("A new profile was made in {}.", profile.dir.display());
    }
    match args.command {
        Command::Init { nickname, listen } => init(&profile, nickname, listen, json),
        Command::Id => id(&profile, json),
        Command::Invite { addr, expires } => invite(&profile, &addr, expires.as_deref(), json),
        Command::Add { ticket, name, timeout } => add(&profile, ticket, name, timeout, json),
        Command::Contacts => contacts(&profile, json),
        Command::Rename { contact, name } => {
            let value = call(&profile, Request::Rename { contact, name: name.clone() })?;
            done(json, value, &format!("Renamed to {name}."))
        }
        Command::Remove { contact } => {
            let value = call(&profile, Request::Remove { contact: contact.clone() })?;
            done(
                json,
                value,
                "Removed. What was said stays on disk; adding the contact again goes on from there.",
            )
        }
        Command::Block { contact, undo } => {
            let value = call(&profile, Request::Block { contact, blocked: !undo })?;
            done(
                json,
                value,
                if undo { "Unblocked." } else { "Blocked: no connection, no acknowledgement. Undo: --undo" },
            )
        }
        Command::Verify { contact, yes, no } => verify(&profile, contact, yes, no, json),
        Command::Send { contact, text, stdin, wait, timeout, expire, id } => {
            crate::span::expire(expire.as_deref())?;
            let within = timeout.map_or(WAIT, Duration::from_secs);
            let request = Request::Send {
                contact,
                text: body(text, stdin)?,
                message_id: id,
                expire,
                wait: if wait == Wait::Queued { "queued" } else { "delivered" }.to_owned(),
                timeout_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            };
            send(&profile, request, wait, within, json)
        }
        Command::Listen { after, from } => listen(&profile, after, from, json),
        Command::Chat { contact, expire } => {
            crate::span::expire(expire.as_deref())?;
            crate::chat::run(&profile, contact, expire, json)
        }
        Command::History { contact, last } => history(&profile, contact, last.unwrap_or(HISTORY_LAST), json),
        Command::Cancel { contact, message } => {
            let value = call(&profile, Request::Cancel { contact, message })?;
            done(json, value, "Taken back. If it had come all the same, history will say: delivered.")
        }
        Command::Delete { contact, message, all } => {
            let value = call(&profile, Request::Delete { contact, message })?;
            let words = if all {
                "Deleted, on this device. New messages go on from here."
            } else {
                "Deleted, on this device."
            };
            done(json, value, words)
        }
        Command::Config { setting, value } => config(&profile, setting, value, json),
        Command::Status => status(&profile, json),
        Command::Doctor { contact } => doctor(&profile, contact, json),
        Command::Up { listen } => up(&profile, listen, json),
        Command::Relay { listen } => relay(&profile, listen, json),
        Command::Repair => crate::repair::run(&profile, json),
        Command::Demo => Ok(()),
    }
}

fn call(profile: &Profile, request: Request) -> Result<Value, Fault> {
    Session::open(profile)?.client.call(request)
}

fn done(json: bool, value: Value, words: &str) -> Result<(), Fault> {
    if json {
        ndjson(value)
    } else {
        line(words)
    }
    Ok(())
}

fn init(
    profile: &Profile,
    nickname: Option<String>,
    listen: Vec<SocketAddr>,
    json: bool,
) -> Result<(), Fault> {
    if !listen.is_empty() {
        profile.write_settings(&Settings { listen, ..profile.settings()? })?;
    }
    let mut session = Session::open(profile)?;
    if nickname.is_some() {
        session.client.call(Request::Nickname { nickname })?;
    }
    let value = session.client.call(Request::Id)?;
    let words = format!("Profile {}\nYou are {}", profile.dir.display(), text(&value, "peer"));
    done(json, value, &words)
}

fn id(profile: &Profile, json: bool) -> Result<(), Fault> {
    // Needs no node: the identity file is enough.
    let peer = profile.peer()?.to_string();
    done(json, json!({ "peer": peer }), &peer)
}

fn invite(profile: &Profile, hosts: &[String], expires: Option<&str>, json: bool) -> Result<(), Fault> {
    let expires = expires.map(crate::span::parse).transpose()?.unwrap_or(INVITE_EXPIRES);
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for host in hosts {
        let found = host
            .to_socket_addrs()
            .map_err(|error| Fault::usage(format!("--addr {host}: {error}; write HOST:PORT")))?;
        addresses.extend(found);
    }
    let mut session = Session::open(profile)?;
    let value = session.client.call(Request::Invite { expires_s: expires.as_secs(), addresses })?;
    let alone = session.host.is_some();
    if json {
        let mut value = value;
        if let Some(object) = value.as_object_mut() {
            object.insert("listening".into(), json!(!alone));
        }
        ndjson(value);
        return Ok(());
    }
    line(text(&value, "ticket"));
    let addresses = value.get("addresses").and_then(Value::as_array).map_or(0, Vec::len);
    if addresses == 0 {
        eprintln!("The ticket names no address: nobody can reach you by it. Give one with --addr HOST:PORT.");
    }
    eprintln!(
        "Good for one person, until {}.",
        crate::show::time(number(&value, "expires_ms"), crate::clock::wall_ms())
    );
    if alone {
        eprintln!("Nobody is listening for the answer yet: run peerlink up (or chat, or listen).");
    }
    Ok(())
}

fn add(
    profile: &Profile,
    ticket: String,
    name: Option<String>,
    timeout: Option<u64>,
    json: bool,
) -> Result<(), Fault> {
    let ticket = if ticket == "-" {
        let mut text = String::new();
        let read = std::io::stdin().take(SMALL_FILE_BYTES).read_to_string(&mut text);
        read.map_err(|error| Fault::usage(format!("standard input: {error}")))?;
        text
    } else {
        ticket
    };
    let mut session = Session::open(profile)?;
    let timeout_ms = timeout.map_or(WAIT, Duration::from_secs).as_millis();
    let timeout_ms = u64::try_from(timeout_ms).unwrap_or(u64::MAX);
    let value = session.client.call(Request::Add { ticket, name, timeout_ms })?;
    let (name, answered) = (text(&value, "name").to_owned(), flag(&value, "answered"));
    let detail = text(&value, "detail").to_owned();
    if answered {
        return done(json, value, &format!("{} is a contact now.", visible(&name, false)));
    }
    let later =
        if session.host.is_some() { "goes on when peerlink next runs (peerlink up)" } else { "goes on" };
    let words =
        format!("{} was added and has not answered yet ({detail}); trying {later}", visible(&name, false));
    if json {
        ndjson(value);
    }
    Err(Fault::new(Code::NotReached, words))
}

fn contacts(profile: &Profile, json: bool) -> Result<(), Fault> {
    let mut session = Session::open(profile)?;
    let value = session.client.call(Request::Contacts)?;
    let running = session.host.is_none();
    let all = value.as_array().cloned().unwrap_or_default();
    if all.is_empty() && !json {
        eprintln!(
            "No contacts yet. Invite somebody: peerlink invite. Or add who invited you: peerlink add <ticket>"
        );
    }
    for contact in all {
        if json {
            ndjson(contact);
        } else {
            line(&contact_line(&contact, running));
        }
    }
    Ok(())
}

/// `running`: a node has been trying to reach the contact, so what it found out is worth a word.
fn contact_line(contact: &Value, running: bool) -> String {
    let mut words = vec![visible(text(contact, "name"), false)];
    let state = text(contact, "state");
    if state != "contact" {
        words.push(format!("({state})"));
    }
    if flag(contact, "verified") {
        words.push("verified".into());
    }
    for (name, word) in [("unread", "unread"), ("queued", "queued"), ("missing", "missing")] {
        if number(contact, name) > 0 {
            words.push(format!("{} {word}", number(contact, name)));
        }
    }
    if running {
        let link = contact.get("link").cloned().unwrap_or_default();
        words.push(format!("· {}", text(&link, "detail")));
    }
    words.join("  ")
}

/// What is known about the way to a contact, beside its newest state.
fn link_lines(contact: &Value) -> Vec<String> {
    let now = crate::clock::wall_ms();
    let link = contact.get("link").cloned().unwrap_or_default();
    let time = |value: &Value, name: &str| crate::show::time(number(value, name), now);
    if flag(&link, "connected") {
        return vec![format!("since {}", time(&link, "since_ms"))];
    }
    let tries = link.get("tries").and_then(Value::as_array).cloned().unwrap_or_default();
    let shown = tries.iter().skip(tries.len().saturating_sub(TRIES_SHOWN));
    let tried = shown.map(|a| format!("{}  {}", time(a, "at_ms"), text(a, "words")));
    let next = link.get("next_ms").and_then(Value::as_u64);
    let next = next.map(|at| match at.saturating_sub(now).div_ceil(1000) {
        0 => "next try now".to_owned(),
        seconds => format!("next try in {seconds} s"),
    });
    tried.chain(next).collect()
}

fn verify(profile: &Profile, contact: String, yes: bool, no: bool, json: bool) -> Result<(), Fault> {
    let mut session = Session::open(profile)?;
    let mark = if yes {
        Some(true)
    } else if no {
        Some(false)
    } else {
        None
    };
    let mut value = session.client.call(Request::Verify { contact: contact.clone(), mark })?;
    if json {
        ndjson(value);
        return Ok(());
    }
    let digits = text(&value, "number").to_owned();
    let groups: Vec<&str> = digits.split(' ').collect();
    line(&format!("The safety number of you and {}:", visible(text(&value, "name"), false)));
    for row in groups.chunks(4) {
        line(&format!("    {}", row.join(" ")));
    }
    if mark.is_none()
        && !flag(&value, "verified")
        && std::io::stdin().is_terminal()
        && std::io::stdout().is_terminal()
    {
        eprint!("Does it read the same on the other side? [y/N] ");
        let mut answer = String::new();
        let _end_is_no = std::io::stdin().read_line(&mut answer);
        if answer.trim().eq_ignore_ascii_case("y") {
            value = session.client.call(Request::Verify { contact, mark: Some(true) })?;
        }
    }
    let state = if flag(&value, "verified") {
        "Marked as verified."
    } else {
        "Not verified. If both read the same: peerlink verify --yes"
    };
    line(state);
    Ok(())
}

fn body(text: Option<String>, stdin: bool) -> Result<String, Fault> {
    let too_long = || {
        let most = peerlink_core::limits::BODY_BYTES;
        Fault::usage(format!("the message is longer than {most} bytes; nothing was sent"))
    };
    if !stdin {
        let text = text.ok_or_else(|| Fault::usage("what to send? Give the text, or --stdin"))?;
        return if text.len() > peerlink_core::limits::BODY_BYTES { Err(too_long()) } else { Ok(text) };
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(peerlink_core::limits::BODY_BYTES).unwrap_or(u64::MAX);
    std::io::stdin().take(most + 2).read_to_end(&mut bytes).map_err(Fault::internal)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.len() > peerlink_core::limits::BODY_BYTES {
        return Err(too_long());
    }
    String::from_utf8(bytes).map_err(|_| Fault::usage("the message is not UTF-8 text; nothing was sent"))
}

fn send(profile: &Profile, request: Request, wait: Wait, within: Duration, json: bool) -> Result<(), Fault> {
    let mut session = Session::open(profile)?;
    let value = session.client.call(request)?;
    let state = text(&value, "state").to_owned();
    let detail = text(&value, "detail").to_owned();
    if json {
        ndjson(value);
    } else if state != "queued" {
        line(&state);
    } else if session.host.is_some() {
        line("queued, will be sent when peerlink next runs (peerlink up)");
    } else {
        line("queued");
    }
    let words = match state.as_str() {
        "expired" => format!("it expired before it was delivered ({detail}); it is not sent any more"),
        "cancelled" => "it was taken back before it was delivered".to_owned(),
        "queued" if wait == Wait::Delivered => format!(
            "not delivered within {} s ({detail}); it is kept and sent as soon as possible",
            within.as_secs()
        ),
        _ => return Ok(()),
    };
    Err(Fault::new(Code::NotReached, words))
}

fn config(
    profile: &Profile,
    setting: Option<Setting>,
    value: Option<String>,
    json: bool,
) -> Result<(), Fault> {
    let mut request = (None, None, None);
    if let (Some(setting), Some(value)) = (setting, &value) {
        let mut settings = profile.settings()?;
        match setting {
            Setting::Expire => {
                crate::span::parse_or_never(value)?;
                request.0 = Some(value.clone());
            }
            Setting::Relays => {
                let relays = crate::profile::parse_relays(value)?;
                settings.relays = relays.iter().map(ToString::to_string).collect();
                request.1 =
                    Some(if relays.is_empty() { "none".to_owned() } else { settings.relays.join(",") });
            }
            Setting::Stun => {
                settings.stun = crate::profile::parse_servers(value)?;
                request.2 = Some(settings.stun.clone());
            }
            Setting::Relay => settings.relay = on_or_off(value)?,
            Setting::Udp => settings.udp = on_or_off(value)?,
            Setting::Mapping => settings.mapping = on_or_off(value)?,
        }
        profile.write_settings(&settings)?;
    }
    let (expire, relays, stun) = request;
    let mut answer = call(profile, Request::Config { expire, relays, stun })?;
    let settings = profile.settings()?;
    if json {
        if let Some(object) = answer.as_object_mut() {
            object.insert("relays".into(), json!(settings.relays));
            object.insert("stun".into(), json!(settings.stun));
            object.insert("relay".into(), json!(settings.relay));
            object.insert("udp".into(), json!(settings.udp));
            object.insert("mapping".into(), json!(settings.mapping));
        }
        ndjson(answer);
        return Ok(());
    }
    let after = answer.get("expire_s").and_then(Value::as_u64).map(Duration::from_secs);
    if let (Some(setting), Some(_)) = (setting, value) {
        line(&changed(setting, &settings, after));
        return Ok(());
    }
    let switch = |on: bool| if on { "on" } else { "off" };
    let relays = if settings.relays.is_empty() { "none".to_owned() } else { settings.relays.join(", ") };
    let stun = settings.stun.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let stun = if stun.is_empty() { "none".to_owned() } else { stun };
    let expire = after.map_or("never".to_owned(), crate::span::spoken);
    for (of, name, value) in [
        (Setting::Expire, "expire", expire.as_str()),
        (Setting::Relays, "relays", relays.as_str()),
        (Setting::Stun, "stun", stun.as_str()),
        (Setting::Relay, "relay", switch(settings.relay)),
        (Setting::Udp, "udp", switch(settings.udp)),
        (Setting::Mapping, "mapping", switch(settings.mapping)),
    ] {
        if setting.is_none_or(|setting| setting == of) {
            line(&format!("{name:<7} {value}"));
        }
    }
    Ok(())
}

fn on_or_off(text: &str) -> Result<bool, Fault> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Fault::usage("say on or off")),
    }
}

/// What a changed setting means from now on.
fn changed(setting: Setting, settings: &Settings, after: Option<Duration>) -> String {
    match (setting, after) {
        (Setting::Expire, None) => "Messages are tried until they are delivered.".to_owned(),
        (Setting::Expire, Some(after)) => format!(
            "Messages that you write from now on are taken back if they are not delivered within {}.",
            crate::span::spoken(after)
        ),
        (Setting::Relays, _) if settings.relays.is_empty() => {
            "You are reached directly or not at all.".to_owned()
        }
        (Setting::Relays, _) => {
            "Who cannot reach you directly does so through these relays. They see that packets pass, and nothing in them."
                .to_owned()
        }
        (Setting::Stun, _) if settings.stun.is_empty() => "Only relays are asked from where you are seen.".to_owned(),
        (Setting::Stun, _) => "They are asked now from where you are seen; see peerlink doctor.".to_owned(),
        (Setting::Relay, _) if settings.relay => {
            "From the next start on this node relays packets for others.".to_owned()
        }
        (Setting::Relay, _) => "From the next start on this node relays for nobody.".to_owned(),
        (Setting::Udp, _) if settings.udp => "From the next start on UDP is used beside TCP.".to_owned(),
        (Setting::Udp, _) => "From the next start on only TCP is used.".to_owned(),
        (Setting::Mapping, _) if settings.mapping => {
            "From the next start on your router is asked to open a port.".to_owned()
        }
        (Setting::Mapping, _) => "From the next start on your router is asked for nothing.".to_owned(),
    }
}

/// Being reachable, and serving others.
fn relay(profile: &Profile, listen: Vec<SocketAddr>, json: bool) -> Result<(), Fault> {
    let mut settings = profile.settings()?;
    settings.relay = true;
    profile.write_settings(&settings)?;
    if !json {
        line("Relaying for others. Each of them says, with an address at which this machine is reached:");
        line(&format!("  peerlink config relays {}@ADDRESS:PORT", profile.peer()?));
    }
    up(profile, listen, json)
}

fn listen(profile: &Profile, after: Option<u64>, from: Option<String>, json: bool) -> Result<(), Fault> {
    let mut follow = Follow::start(profile, What { after, contact: from, quiet: false, unread: true })?;
    loop {
        let event = follow.next()?;
        let kind = text(&event, "kind").to_owned();
        if json {
            ndjson(event);
            continue;
        }
        match kind.as_str() {
            "message" => line(&message(&event, crate::clock::wall_ms())),
            "listening" if follow.is_host() => eprintln!("Listening. Ctrl-C ends it."),
            _ => {
                if let Some(notice) = notice(&event) {
                    line(&notice);
                }
            }
        }
    }
}

fn history(profile: &Profile, contact: String, last: usize, json: bool) -> Result<(), Fault> {
    let value = call(profile, Request::History { contact, last })?;
    let now = crate::clock::wall_ms();
    for entry in value.as_array().cloned().unwrap_or_default() {
        if json {
            ndjson(entry);
        } else {
            line(&message(&entry, now));
        }
    }
    Ok(())
}

fn status(profile: &Profile, json: bool) -> Result<(), Fault> {
    let mut session = Session::open(profile)?;
    let value = session.client.call(Request::Status)?;
    let running = session.host.is_none();
    if json {
        let mut value = value;
        if let Some(object) = value.as_object_mut() {
            object.insert("running".into(), json!(running));
        }
        ndjson(value);
        return Ok(());
    }
    let list = |name: &str| {
        let all = value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    line(&format!("You are {}", text(&value, "peer")));
    if running {
        line(&format!("Listening on {}", list("listen")));
        line(&format!("Others are told {}", list("reachable")));
        if let Some(seen) = value.get("seen").and_then(|seen| seen.get("addresses")).and_then(Value::as_array)
        {
            let seen: Vec<&str> = seen.iter().filter_map(Value::as_str).collect();
            if !seen.is_empty() {
                line(&format!("You are seen at {}", seen.join(", ")));
            }
        }
        for relay in value.get("relays").and_then(Value::as_array).cloned().unwrap_or_default() {
            let state = relay.get("link").map(|link| text(link, "detail")).unwrap_or_default();
            line(&format!("Relay {}: {state}", text(&relay, "relay")));
        }
        for port in value.get("mapped").and_then(Value::as_array).cloned().unwrap_or_default() {
            let (transport, external) = (text(&port, "transport"), text(&port, "external"));
            let number = external.rsplit(':').next().unwrap_or_default();
            line(&format!(
                "Your router opened {} port {number}: others reach you at {external}",
                transport.to_uppercase()
            ));
        }
        if number(&value, "relayed") > 0 {
            line(&format!("Relayed for others: {} packets", number(&value, "relayed")));
        }
    } else {
        line("Nothing is running for this profile: start peerlink up to be reachable.");
    }
    for contact in value.get("contacts").and_then(Value::as_array).cloned().unwrap_or_default() {
        line(&format!("  {}", contact_line(&contact, running)));
        for words in link_lines(&contact).into_iter().filter(|_| running) {
            line(&format!("      {words}"));
        }
    }
    if !running {
        return Ok(());
    }
    line(&format!(
        "Since the start: {} sent, {} received, {} doubles ignored, {} sessions",
        number(&value, "sent"),
        number(&value, "received"),
        number(&value, "duplicates_ignored"),
        number(&value, "sessions")
    ));
    let away = value.get("turned_away").and_then(Value::as_object).cloned().unwrap_or_default();
    let counts: Vec<String> = away
        .iter()
        .filter(|(_, count)| count.as_u64().unwrap_or(0) > 0)
        .map(|(why, count)| format!("{count} {}", why.replace('_', " ")))
        .collect();
    if !counts.is_empty() {
        line(&format!("Turned away: {}", counts.join(", ")));
    }
    Ok(())
}

fn doctor(profile: &Profile, contact: Option<String>, json: bool) -> Result<(), Fault> {
    let mut session = Session::open(profile)?;
    let within_ms = u64::try_from(EXAMINE.as_millis()).unwrap_or(u64::MAX);
    let facts = session.client.call(Request::Examine { contact, within_ms })?;
    crate::doctor::show(facts, session.host.is_none(), json)
}

fn up(profile: &Profile, listen: Vec<SocketAddr>, json: bool) -> Result<(), Fault> {
    let chosen = listen.clone();
    if !listen.is_empty() {
        profile.write_settings(&Settings { listen, ..profile.settings()? })?;
    }
    let mut follow = Follow::start(profile, What { quiet: true, ..What::default() })?;
    if let Some(host) = follow.host() {
        let addresses: Vec<String> = host.listen_addresses().iter().map(ToString::to_string).collect();
        if json {
            ndjson(json!({ "kind": "up", "listen": addresses }));
        } else {
            line(&format!("Up, listening on {}. Ctrl-C ends it.", addresses.join(", ")));
        }
    } else if !json {
        line("Another peerlink holds this profile; this one takes over when that ends.");
        if !chosen.is_empty() {
            line("The new addresses hold from then on.");
        }
    }
    loop {
        let event = follow.next()?;
        let contact = visible(text(&event, "contact"), false);
        match text(&event, "kind") {
            _ if json => ndjson(event),
            "connected" => line(&format!("{contact} is connected")),
            "disconnected" => line(&format!("{contact} is gone: {}", text(&event, "detail"))),
            "contact" => line(&format!("{contact} is a contact now")),
            _ => {
                if let Some(notice) = notice(&event) {
                    line(&notice);
                }
            }
        }
        if follow.host().is_some_and(crate::host::Host::store_failed) {
            return Err(Fault::new(
                Code::Store,
                "the store failed; nothing more is promised until the next start",
            ));
        }
    }
}
