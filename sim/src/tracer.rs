//! What went into every node and what came out, as a rolling hash, and as text if somebody reads it.

use crate::limits::TRACE_LINE_CHARS;
use peerlink_core::api::{Answer, Command, Event, Expire, Input, Output};
use peerlink_core::time::Instant;
use peerlink_core::trace::line;
use std::fmt::{self, Write as _};

/// Where the text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Print {
    Nothing,
    /// Lines cut to a readable length.
    Short,
    /// Lines that can be parsed and replayed.
    Whole,
}

/// Hashes a line for everything that passes the border of a node. Long bytes are hashed as they are, not as text.
#[derive(Debug, Clone)]
pub(crate) struct Tracer {
    hasher: blake3::Hasher,
    print: Print,
    scratch: String,
    pub(crate) lines: u64,
}

struct Hashed<'a>(&'a mut blake3::Hasher);

impl fmt::Write for Hashed<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

impl Tracer {
    #[must_use]
    pub(crate) fn new(print: Print) -> Self {
        Self { hasher: blake3::Hasher::new(), print, scratch: String::new(), lines: 0 }
    }

    #[must_use]
    pub(crate) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    fn begin(&mut self, host: usize, kind: u8, at: Instant) {
        self.lines += 1;
        self.hasher.update(&[u8::try_from(host).unwrap_or(u8::MAX), kind]);
        self.hasher.update(&at.as_micros().to_le_bytes());
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.hasher.update(&number.to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
        self
    }

    fn text(&mut self, line: &impl fmt::Display) {
        self.scratch.clear();
        let _infallible = write!(self.scratch, "{line}");
        let _infallible = Hashed(&mut self.hasher).write_str(&self.scratch);
    }

    pub(crate) fn input(&mut self, now: u64, host: usize, name: &str, at: Instant, input: &Input<'_>) {
        match input {
            Input::StreamData { stream, bytes } => {
                self.begin(host, 1, at);
                self.number(stream.0).bytes(bytes);
            }
            Input::Datagram { remote, bytes } => {
                self.begin(host, 10, at);
                self.text(remote);
                self.bytes(bytes);
            }
            Input::Loaded { load, answer: Answer::Page(page) } => {
                self.begin(host, 2, at);
                self.number(load.0).number(u64::from(page.complete)).number(page.records.len() as u64);
                for (key, value) in &page.records {
                    self.bytes(key).bytes(value);
                }
            }
            other => {
                self.begin(host, 3, at);
                self.text(&line(at, other));
            }
        }
        self.say(now, name, || line(at, input).to_string());
    }

    pub(crate) fn command(&mut self, now: u64, host: usize, name: &str, at: Instant, command: &Command) {
        match command {
            Command::Send { peer, caller, fresh, expire, body } => {
                self.begin(host, 4, at);
                let expire = match expire {
                    Expire::Default => 0,
                    Expire::Never => 1,
                    Expire::After(after) => after.as_micros().saturating_add(2),
                };
                self.bytes(peer.as_bytes()).bytes(&caller.0).number(u64::from(*fresh));
                self.number(u64::try_from(expire).unwrap_or(u64::MAX)).bytes(body);
            }
            other => {
                self.begin(host, 5, at);
                self.text(&line(at, other));
            }
        }
        self.say(now, name, || line(at, command).to_string());
    }

    pub(crate) fn output(&mut self, now: u64, host: usize, name: &str, at: Instant, output: &Output) {
        match output {
            Output::Write { stream, bytes } => {
                self.begin(host, 6, at);
                self.number(stream.0).bytes(bytes);
            }
            Output::Datagram { remote, ttl, bytes } => {
                self.begin(host, 11, at);
                self.text(remote);
                self.number(ttl.map_or(0, |ttl| u64::from(ttl) + 1)).bytes(bytes);
            }
            Output::Persist(batch) => {
                self.begin(host, 7, at);
                self.number(batch.id.0).number(batch.writes.len() as u64);
                for (key, value) in &batch.writes {
                    self.bytes(key).number(u64::from(value.is_some()));
                    self.bytes(value.as_deref().unwrap_or_default());
                }
            }
            Output::Event(Event::Received { peer, arrival, ordinal, message, kind, claimed, body }) => {
                self.begin(host, 8, at);
                self.bytes(peer.as_bytes()).number(*arrival).number(*ordinal).bytes(&message.epoch.0);
                self.number(message.seq).number(*kind as u64).number(claimed.0).bytes(body);
            }
            other => {
                self.begin(host, 9, at);
                self.text(&line(at, other));
            }
        }
        self.say(now, name, || line(at, output).to_string());
    }

    /// Something that happened outside the nodes: a fault, a crash, a start.
    pub(crate) fn note(&mut self, now: u64, text: impl FnOnce() -> String) {
        self.say(now, "world", text);
    }

    fn say(&mut self, now: u64, name: &str, text: impl FnOnce() -> String) {
        if self.print == Print::Nothing {
            return;
        }
        let text = text();
        let (seconds, micros) = (now / 1_000_000, now % 1_000_000);
        let count = text.len();
        if self.print == Print::Short && count > TRACE_LINE_CHARS {
            let cut: String = text.chars().take(TRACE_LINE_CHARS).collect();
            println!("{seconds:4}.{micros:06} {name:5} {cut}… ({count} characters)");
        } else {
            println!("{seconds:4}.{micros:06} {name:5} {text}");
        }
    }
}
