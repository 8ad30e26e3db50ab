//! A conversation, line by line. On a terminal, what comes in is printed above the line that is being typed; through
//! pipes, lines in are messages and lines out are what was said.

use crate::client::Session;
use crate::commands::line;
use crate::fault::{Code, Fault};
use crate::limits::{HISTORY_LAST, WAIT};
use crate::profile::Profile;
use crate::proto::Request;
use crate::show::{message, visible};
use crate::talk::Follow;
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long to wait for a quick proof of delivery before saying `queued`.
const AT_ONCE_MS: u64 = 400;

/// Own messages that are not proven to be delivered.
#[derive(Debug, Default)]
struct Pending {
    messages: Mutex<BTreeMap<String, String>>,
    changed: Condvar,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, message: &str, text: &str) {
        self.lock().insert(message.to_owned(), text.to_owned());
    }

    /// Takes out what a proof covers.
    fn delivered(&self, event: &Value) -> Vec<(String, String)> {
        let field = |name: &str| event.get(name).and_then(Value::as_u64).unwrap_or_default();
        let epoch = event.get("epoch").and_then(Value::as_str).unwrap_or_default().to_owned();
        let covered = |message: &str| {
            let (of, seq) = message.split_once(':').unwrap_or_default();
            of == epoch && seq.parse().is_ok_and(|seq: u64| (field("first")..=field("last")).contains(&seq))
        };
        let mut messages = self.lock();
        let names: Vec<String> = messages.keys().filter(|message| covered(message)).cloned().collect();
        let taken = names.into_iter().filter_map(|name| messages.remove_entry(&name)).collect();
        self.changed.notify_all();
        taken
    }

    /// Waits until nothing is pending; whether that came true.
    fn wait(&self, within: Duration) -> bool {
        let messages = self.lock();
        let waited = self.changed.wait_timeout_while(messages, within, |messages| !messages.is_empty());
        waited.map_or_else(|error| error.into_inner().0.is_empty(), |(messages, _)| messages.is_empty())
    }
}

/// Where what comes in is printed.
type Print = Box<dyn FnMut(String) + Send>;

pub(crate) fn run(profile: &Profile, contact: String, json: bool) -> Result<(), Fault> {
    let terminal = !json && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let follow = Follow::start(profile, None, Some(contact.clone()), false)?;
    crate::signals::end_in_good_order()?;
    let now = crate::clock::wall_ms();
    let last = if terminal { 10.min(HISTORY_LAST) } else { 0 };
    let request = Request::History { contact: contact.clone(), last };
    let said = Session::another(profile)?.call(request)?;
    let pending = Arc::new(Pending::default());
    for entry in said.as_array().cloned().unwrap_or_default() {
        line(&message(&entry, now));
        if entry.get("state").and_then(Value::as_str) == Some("queued") {
            let field = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            pending.insert(field("message"), field("text"));
        }
    }
    let result = if terminal {
        talk(profile, &contact, follow, &pending)
    } else {
        pipe(profile, &contact, follow, &pending, json)
    };
    crate::host::shut_down_running();
    result
}

fn follow_on(mut follow: Follow, pending: Arc<Pending>, mut print: Print, json: bool) -> Result<(), Fault> {
    let run = move || {
        while let Ok(mut event) = follow.next() {
            let kind = event.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            let taken = if kind == "delivered" { pending.delivered(&event) } else { Vec::new() };
            if json {
                if let Some(object) = event.as_object_mut() {
                    object.insert("v".into(), json!(1));
                }
                print(event.to_string());
                continue;
            }
            let contact = visible(event.get("contact").and_then(Value::as_str).unwrap_or_default(), false);
            match kind.as_str() {
                "message" => print(message(&event, crate::clock::wall_ms())),
                "connected" => print(format!("       ({contact} is connected)")),
                "disconnected" => {
                    let detail = event.get("detail").and_then(Value::as_str).unwrap_or_default();
                    print(format!("       ({contact} is gone: {detail})"));
                }
                _ => {}
            }
            for (_, text) in taken {
                print(format!("       [delivered] {}", shortened(&text)));
            }
        }
    };
    std::thread::Builder::new().name("incoming".into()).spawn(run).map_err(Fault::internal)?;
    Ok(())
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    let visible = visible(text, false);
    match visible.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", visible.get(..at).unwrap_or_default()),
        None => visible,
    }
}

/// Sends one line. What it became: its name, and its state as a word.
fn send(profile: &Profile, contact: &str, text: &str, pending: &Pending) -> Result<(Value, String), Fault> {
    let mut client = Session::another(profile).or_else(|_| {
        // The node changed hands; the listening thread is taking over, or another front end did.
        std::thread::sleep(Duration::from_millis(500));
        Session::another(profile)
    })?;
    let request = Request::Send {
        contact: contact.to_owned(),
        text: text.to_owned(),
        message_id: None,
        wait: "delivered".to_owned(),
        timeout_ms: AT_ONCE_MS,
    };
    let value = client.call(request)?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let state = field("state");
    if state != "delivered" {
        pending.insert(&field("message"), text);
    }
    Ok((value, state))
}

fn talk(profile: &Profile, contact: &str, follow: Follow, pending: &Arc<Pending>) -> Result<(), Fault> {
    let mut editor = DefaultEditor::new().map_err(Fault::internal)?;
    let mut printer = editor.create_external_printer().map_err(Fault::internal)?;
    let print: Print = Box::new(move |text| {
        let _closed = printer.print(format!("{text}\n"));
    });
    follow_on(follow, pending.clone(), print, false)?;
    line("       (Enter sends, Ctrl-D ends)");
    loop {
        match editor.readline("you: ") {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => match send(profile, contact, &text, pending) {
                Ok((_, state)) => line(&format!("       [{state}]")),
                Err(fault) => line(&format!("       not sent: {}", visible(&fault.message, false))),
            },
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(()),
            Err(error) => return Err(Fault::internal(error)),
        }
    }
}

fn pipe(
    profile: &Profile,
    contact: &str,
    follow: Follow,
    pending: &Arc<Pending>,
    json: bool,
) -> Result<(), Fault> {
    follow_on(follow, pending.clone(), Box::new(|text| line(&text)), json)?;
    for text in std::io::stdin().lock().lines() {
        let text = text.map_err(|_| Fault::usage("a line is not UTF-8 text; it was not sent"))?;
        if text.is_empty() {
            continue;
        }
        let (mut value, state) = send(profile, contact, &text, pending)?;
        if json {
            if let Some(object) = value.as_object_mut() {
                object.insert("v".into(), json!(1));
                object.insert("kind".into(), json!("sent"));
            }
            line(&value.to_string());
        } else {
            line(&format!("       [{state}] {}", shortened(&text)));
        }
    }
    if pending.wait(WAIT) {
        return Ok(());
    }
    let left = pending.lock().len();
    Err(Fault::new(
        Code::NotReached,
        format!("{left} not delivered yet; kept, and sent when peerlink next runs (peerlink up)"),
    ))
}
