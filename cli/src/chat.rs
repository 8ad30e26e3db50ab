//! A conversation, line by line. On a terminal, what comes in is printed above the line that is being typed; through
//! pipes, lines in are messages and lines out are what was said.

use crate::client::Session;
use crate::commands::line;
use crate::fault::{Code, Fault};
use crate::limits::{AT_ONCE, CHAT_LAST, PAGE, PROOFS, WAIT};
use crate::profile::Profile;
use crate::proto::Request;
use crate::show::{message, notice, shortened, visible};
use crate::talk::{Follow, What};
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter as _};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead as _, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// Entries `first..=last` of an epoch, proven to be delivered.
#[derive(Debug)]
struct Proof {
    epoch: String,
    first: u64,
    last: u64,
}

impl Proof {
    fn covers(&self, message: &str) -> bool {
        let (of, seq) = message.split_once(':').unwrap_or_default();
        of == self.epoch && seq.parse().is_ok_and(|seq: u64| (self.first..=self.last).contains(&seq))
    }
}

#[derive(Debug, Default)]
struct State {
    /// Own messages that are not proven to be delivered, by reference, with their text.
    pending: BTreeMap<String, String>,
    /// A proof may overtake the answer that tells the name of its message.
    proofs: VecDeque<Proof>,
    /// So may the word that it expired.
    early: VecDeque<String>,
    /// How many expired before they were delivered.
    expired: usize,
    /// How many are over, and that is not printed yet.
    unsaid: usize,
}

/// What became of own messages: a word, and their texts.
type Became = Vec<(&'static str, String)>;

/// Own messages on their way.
#[derive(Debug, Default)]
struct Pending {
    state: Mutex<State>,
    changed: Condvar,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of it already, if anything is.
    fn insert(&self, message: &str, text: &str) -> Option<&'static str> {
        let mut state = self.lock();
        if state.proofs.iter().any(|proof| proof.covers(message)) {
            return Some("delivered");
        }
        if state.early.iter().any(|expired| expired == message) {
            state.expired += 1;
            return Some("expired");
        }
        state.pending.insert(message.to_owned(), text.to_owned());
        None
    }

    /// Takes out what a proof covers.
    fn proven(&self, event: &Value) -> Became {
        let proof = Proof {
            epoch: text(event, "epoch").to_owned(),
            first: number(event, "first"),
            last: number(event, "last"),
        };
        let mut state = self.lock();
        let taken = state.pending.extract_if(.., |message, _| proof.covers(message));
        let taken: Became = taken.map(|(_, text)| ("delivered", text)).collect();
        state.unsaid += taken.len();
        if state.proofs.len() >= PROOFS {
            state.proofs.pop_front();
        }
        state.proofs.push_back(proof);
        taken
    }

    /// A message has another name from now on.
    fn renamed(&self, old: &str, new: &str) -> Became {
        let mut state = self.lock();
        if let Some(text) = state.pending.remove(old) {
            state.pending.insert(new.to_owned(), text);
        }
        Vec::new()
    }

    /// A message was taken back, or expired: nobody waits for it.
    fn over(&self, message: &str, became: &str) -> Became {
        let mut state = self.lock();
        let taken = state.pending.remove(message);
        let became = match became {
            "delivered" => "delivered",
            "expired" => {
                state.expired += usize::from(taken.is_some());
                if taken.is_none() {
                    if state.early.len() >= PROOFS {
                        state.early.pop_front();
                    }
                    state.early.push_back(message.to_owned());
                }
                "expired"
            }
            _ => "taken back",
        };
        state.unsaid += usize::from(taken.is_some());
        taken.map(|text| (became, text)).into_iter().collect()
    }

    /// Takes out what the store says is over: events may have been missed.
    fn reconcile(&self, history: &[Value]) -> Became {
        let over = history.iter().filter(|entry| text(entry, "state") != "queued");
        over.flat_map(|entry| self.over(text(entry, "message"), text(entry, "state"))).collect()
    }

    /// So many that are over were printed.
    fn said(&self, count: usize) {
        let mut state = self.lock();
        state.unsaid = state.unsaid.saturating_sub(count);
        self.changed.notify_all();
    }

    fn left(&self) -> usize {
        self.lock().pending.len()
    }

    /// Waits until nothing is pending, and all that was is printed; whether that came true.
    fn wait(&self, within: Duration) -> bool {
        let open = |state: &mut State| !state.pending.is_empty() || state.unsaid > 0;
        let waited = self.changed.wait_timeout_while(self.lock(), within, open);
        !open(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// Where what comes in is printed.
type Print = Box<dyn FnMut(String) + Send>;

/// One conversation: what every part of this program needs to know about it.
#[derive(Clone)]
struct Talk {
    profile: Profile,
    contact: String,
    /// How long what is written is tried.
    expire: Option<String>,
    pending: Arc<Pending>,
    json: bool,
    /// The user left: whatever comes from now on is nobody's business.
    left: Arc<AtomicBool>,
}

pub(crate) fn run(
    profile: &Profile,
    contact: String,
    expire: Option<String>,
    json: bool,
) -> Result<(), Fault> {
    let terminal = !json && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    // Through pipes, what is unread comes as messages; on a terminal, as a part of what was said before.
    let what = What { contact: Some(contact.clone()), unread: !terminal, ..What::default() };
    let follow = Follow::start(profile, what)?;
    let talk = Talk {
        profile: profile.clone(),
        contact,
        expire,
        pending: Arc::default(),
        json,
        left: Arc::default(),
    };
    let result = if terminal { talk.on_terminal(follow) } else { talk.through_pipes(follow) };
    talk.left.store(true, Ordering::SeqCst);
    crate::host::shut_down_running();
    result
}

impl Talk {
    fn history(&self, last: usize) -> Result<Vec<Value>, Fault> {
        let request = Request::History { contact: self.contact.clone(), last };
        let said = Session::another_soon(&self.profile)?.call(request)?;
        Ok(said.as_array().cloned().unwrap_or_default())
    }

    fn unread(&self) -> Result<usize, Fault> {
        let contacts = Session::another_soon(&self.profile)?.call(Request::Contacts)?;
        let all = contacts.as_array().cloned().unwrap_or_default();
        let wanted = self.contact.to_lowercase();
        let known = all.iter().find(|contact| text(contact, "name").to_lowercase().starts_with(&wanted));
        Ok(known.map_or(0, |contact| usize::try_from(number(contact, "unread")).unwrap_or(PAGE)))
    }

    /// Prints what was said before; the arrival numbers of what was shown.
    fn begin(&self) -> Result<BTreeSet<u64>, Fault> {
        let now = crate::clock::wall_ms();
        let mut shown = BTreeSet::new();
        for entry in self.history(CHAT_LAST.max(self.unread()?).min(PAGE))? {
            line(&message(&entry, now));
            shown.insert(number(&entry, "arrival"));
            if text(&entry, "state") == "queued" {
                self.pending.insert(text(&entry, "message"), text(&entry, "text"));
            }
        }
        Ok(shown)
    }

    /// A thread that prints what comes.
    fn follow_on(&self, follow: Follow, shown: BTreeSet<u64>, mut print: Print) -> Result<(), Fault> {
        let talk = self.clone();
        let run = move || {
            let fault = talk.print_what_comes(follow, &shown, &mut print);
            crate::signals::yield_to_signal();
            if talk.left.load(Ordering::SeqCst) {
                return;
            }
            print(format!("peerlink: {}", visible(&fault.message, false)));
            crate::host::shut_down_running();
            crate::signals::restore_terminal();
            std::process::exit(i32::from(fault.code as u8));
        };
        std::thread::Builder::new().name("incoming".into()).spawn(run).map_err(Fault::internal)?;
        Ok(())
    }

    fn print_what_comes(&self, mut follow: Follow, shown: &BTreeSet<u64>, print: &mut Print) -> Fault {
        let mut begun = false;
        loop {
            let mut event = match follow.next() {
                Ok(event) => event,
                Err(fault) => return fault,
            };
            if self.left.load(Ordering::SeqCst) {
                continue;
            }
            let kind = text(&event, "kind").to_owned();
            let became = match kind.as_str() {
                "delivered" => self.pending.proven(&event),
                "reissued" => self.pending.renamed(text(&event, "old"), text(&event, "new")),
                "dropped" => self.pending.over(text(&event, "message"), text(&event, "state")),
                // Another node than before, or events that were missed.
                "listening" | "lagged" if std::mem::replace(&mut begun, true) => match self.history(PAGE) {
                    Ok(history) => self.pending.reconcile(&history),
                    Err(fault) => return fault,
                },
                _ => Vec::new(),
            };
            if kind == "message" && shown.contains(&number(&event, "arrival")) {
                continue;
            }
            if self.json {
                if let Some(object) = event.as_object_mut() {
                    object.insert("v".into(), json!(1));
                }
                print(event.to_string());
                self.pending.said(became.len());
                continue;
            }
            let contact = visible(text(&event, "contact"), false);
            match kind.as_str() {
                "message" => print(message(&event, crate::clock::wall_ms())),
                "connected" => print(format!("       ({contact} is connected)")),
                "disconnected" => {
                    print(format!("       ({contact} is gone: {})", visible(text(&event, "detail"), false)));
                }
                // It is named below.
                "dropped" if !became.is_empty() => {}
                _ => {
                    if let Some(notice) = notice(&event) {
                        print(format!("       {notice}"));
                    }
                }
            }
            let over = became.len();
            for (became, text) in became {
                print(format!("       [{became}] {}", shortened(&text)));
            }
            self.pending.said(over);
        }
    }

    /// Sends one line: the answer, and its state as a word. A node that ends meanwhile is asked again under the next
    /// holder, and because the message has its id from the start, it stays one message.
    fn send(&self, body: &str) -> Result<(Value, String), Fault> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(Fault::internal)?;
        let request = Request::Send {
            contact: self.contact.clone(),
            text: body.to_owned(),
            message_id: Some(data_encoding::HEXLOWER.encode(&id)),
            expire: self.expire.clone(),
            wait: "delivered".to_owned(),
            timeout_ms: u64::try_from(AT_ONCE.as_millis()).unwrap_or(u64::MAX),
        };
        let mut tries = 0;
        let mut value = loop {
            tries += 1;
            match Session::another_soon(&self.profile)?.call(request.clone()) {
                Ok(value) => break value,
                Err(fault) if fault.code == Code::Internal && tries < 3 => {}
                Err(fault) => return Err(fault),
            }
        };
        let mut state = text(&value, "state").to_owned();
        if state == "queued"
            && let Some(known) = self.pending.insert(text(&value, "message"), body)
        {
            known.clone_into(&mut state);
            value["state"] = json!(state);
        }
        Ok((value, state))
    }

    fn on_terminal(&self, follow: Follow) -> Result<(), Fault> {
        let shown = self.begin()?;
        crate::signals::remember_terminal();
        let mut editor = DefaultEditor::new().map_err(Fault::internal)?;
        let mut printer = editor.create_external_printer().map_err(Fault::internal)?;
        let print: Print = Box::new(move |text| {
            let _closed = printer.print(format!("{text}\n"));
        });
        line("       (Enter sends, Ctrl-D ends)");
        self.follow_on(follow, shown, print)?;
        let ended = loop {
            match editor.readline("you: ") {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    let _full_is_fine = editor.add_history_entry(&text);
                    match self.send(&text) {
                        Ok((_, state)) => line(&format!("       [{state}]")),
                        Err(fault) => line(&format!("       not sent: {}", visible(&fault.message, false))),
                    }
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => break Ok(()),
                Err(error) => break Err(Fault::internal(error)),
            }
        };
        match self.pending.left() {
            0 => {}
            1 => {
                line("1 message is not delivered yet: kept, and sent when peerlink next runs (peerlink up).")
            }
            n => line(&format!(
                "{n} messages are not delivered yet: kept, and sent when peerlink next runs (peerlink up)."
            )),
        }
        ended
    }

    fn through_pipes(&self, follow: Follow) -> Result<(), Fault> {
        self.follow_on(follow, BTreeSet::new(), Box::new(|text| line(&text)))?;
        for body in std::io::stdin().lock().lines() {
            let body = body.map_err(|_| Fault::usage("a line is not UTF-8 text; it was not sent"))?;
            if body.is_empty() {
                continue;
            }
            let (mut value, state) = self.send(&body)?;
            if self.json {
                if let Some(object) = value.as_object_mut() {
                    object.insert("v".into(), json!(1));
                    object.insert("kind".into(), json!("sent"));
                }
                line(&value.to_string());
            } else {
                line(&format!("       [{state}] {}", shortened(&body)));
            }
        }
        let waited = self.pending.wait(WAIT);
        let (left, expired) = (self.pending.left(), self.pending.lock().expired);
        if waited && expired == 0 {
            return Ok(());
        }
        if waited {
            return Err(Fault::new(Code::NotReached, format!("{expired} expired before delivery")));
        }
        Err(Fault::new(
            Code::NotReached,
            format!("{left} not delivered yet; kept, and sent when peerlink next runs (peerlink up)"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_that_overtakes_the_answer_counts() {
        let pending = Pending::default();
        let proof = json!({ "epoch": "aa", "first": 2, "last": 3 });
        assert!(pending.proven(&proof).is_empty());
        assert_eq!(pending.insert("aa:2", "early"), Some("delivered"));
        assert_eq!(pending.insert("aa:4", "late"), None);
        assert_eq!(pending.insert("bb:3", "of another epoch"), None);
        assert!(!pending.wait(Duration::ZERO));
        let proof = json!({ "epoch": "aa", "first": 4, "last": 4 });
        assert_eq!(pending.proven(&proof), [("delivered", "late".to_owned())]);
        let history = [json!({ "message": "bb:3", "state": "delivered" })];
        assert_eq!(pending.reconcile(&history), [("delivered", "of another epoch".to_owned())]);
        assert_eq!(pending.insert("cc:1", "too late"), None);
        assert_eq!(pending.over("cc:1", "expired"), [("expired", "too late".to_owned())]);
        assert!(pending.over("cc:2", "expired").is_empty());
        assert_eq!(pending.insert("cc:2", "too late as well"), Some("expired"));
        assert_eq!(pending.lock().expired, 2);
        assert!(!pending.wait(Duration::ZERO), "they are not printed");
        pending.said(3);
        assert!(pending.wait(Duration::ZERO));
    }
}
