//! The socket protocol: one JSON object a line, each with `"v":1`. A request has an `"id"` that its answer repeats;
//! the answer holds `"ok"` or `"error"`. A `listen` request is answered by objects with `"event"`, without end.

use crate::fault::{Code, Fault};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) const VERSION: u64 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Request {
    Id,
    Invite {
        expires_s: u64,
        /// Addresses beside those that the machine knows.
        addresses: Vec<std::net::SocketAddr>,
    },
    Add {
        ticket: String,
        name: Option<String>,
        timeout_ms: u64,
    },
    Contacts,
    Rename {
        contact: String,
        name: String,
    },
    Remove {
        contact: String,
    },
    Block {
        contact: String,
        blocked: bool,
    },
    Verify {
        contact: String,
        /// `None` only asks for the number.
        mark: Option<bool>,
    },
    Send {
        contact: String,
        text: String,
        /// The caller's own id (32 hexadecimal digits): sending it again is the same message.
        message_id: Option<String>,
        /// How long it is tried, as `7d`, or `never`; without, as the profile says.
        #[serde(default)]
        expire: Option<String>,
        /// `"queued"` or `"delivered"`.
        wait: String,
        timeout_ms: u64,
    },
    History {
        contact: String,
        last: usize,
    },
    /// Take back an own message; without `message`, the newest that is not delivered.
    Cancel {
        contact: String,
        message: Option<String>,
    },
    /// Delete one message here, or all.
    Delete {
        contact: String,
        message: Option<String>,
    },
    Status,
    /// The settings; with `expire`, that one is changed before: `7d`, or `never`.
    Config {
        #[serde(default)]
        expire: Option<String>,
        /// The home relays from now on.
        #[serde(default)]
        relays: Option<String>,
        /// The STUN servers from now on.
        #[serde(default)]
        stun: Option<Vec<std::net::SocketAddr>>,
    },
    /// What is known of how this node, or a contact, is reached; both are tried anew, for at most so long.
    Examine {
        #[serde(default)]
        contact: Option<String>,
        within_ms: u64,
    },
    Nickname {
        nickname: Option<String>,
    },
    /// Messages after this arrival number, of one contact or of all, and what happens from then on.
    Listen {
        after: Option<u64>,
        contact: Option<String>,
        /// Without `after`: begin with what the user has not seen.
        #[serde(default)]
        unread: bool,
        /// Show no message, mark nothing as read.
        #[serde(default)]
        quiet: bool,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) v: u64,
    pub(crate) id: u64,
    #[serde(flatten)]
    pub(crate) request: Request,
}

/// Reads a request line. Gives the id as far as there is one, so that even a bad request is answered.
pub(crate) fn parse(line: &str) -> Result<(u64, Request), (u64, Fault)> {
    let value: Value = serde_json::from_str(line)
        .map_err(|error| (0, Fault::usage(format!("not a JSON object: {error}"))))?;
    let id = value.get("id").and_then(Value::as_u64).unwrap_or(0);
    match value.get("v").and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(other) => {
            return Err((
                id,
                Fault::usage(format!("protocol version {other} is unknown; this is version {VERSION}")),
            ));
        }
        None => return Err((id, Fault::usage(format!("a request needs \"v\":{VERSION}")))),
    }
    let envelope: Result<Envelope, _> = serde_json::from_value(value);
    envelope
        .map(|envelope| (id, envelope.request))
        .map_err(|error| (id, Fault::usage(format!("bad request: {error}"))))
}

pub(crate) fn answer(id: u64, result: &Result<Value, Fault>) -> Value {
    match result {
        Ok(ok) => json!({ "v": VERSION, "id": id, "ok": ok }),
        Err(fault) => {
            json!({ "v": VERSION, "id": id, "error": { "code": fault.code as u8, "message": fault.message } })
        }
    }
}

pub(crate) fn event(id: u64, event: &Value) -> Value {
    json!({ "v": VERSION, "id": id, "event": event })
}

/// What an answer says.
pub(crate) fn unwrap(mut answer: Value) -> Result<Value, Fault> {
    if let Some(error) = answer.get("error") {
        let code = error.get("code").and_then(Value::as_u64).unwrap_or(1);
        let message = error.get("message").and_then(Value::as_str).unwrap_or("an error without a message");
        return Err(Fault::new(Code::from_number(code), message));
    }
    Ok(answer.get_mut("ok").map(Value::take).unwrap_or(Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_and_a_bad_one_says_why_under_its_id() {
        let request = Request::Block { contact: "bob".into(), blocked: true };
        let line = serde_json::to_string(&Envelope { v: 1, id: 9, request: request.clone() }).unwrap();
        assert_eq!(line, r#"{"v":1,"id":9,"do":"block","contact":"bob","blocked":true}"#);
        assert_eq!(parse(&line).unwrap(), (9, request));
        assert_eq!(parse(r#"{"v":2,"id":5,"do":"id"}"#).unwrap_err().0, 5);
        assert!(parse(r#"{"v":1,"id":5,"do":"fly"}"#).unwrap_err().1.message.contains("fly"));
        assert!(parse(r#"{"id":5,"do":"id"}"#).is_err());
        assert!(parse("nonsense").is_err());
    }
}
