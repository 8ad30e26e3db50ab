//! Following what comes, across the end of the node that held the profile: whoever listens takes over.

use crate::client::{Client, Session};
use crate::fault::Fault;
use crate::host::Host;
use crate::profile::Profile;
use crate::proto::Request;
use serde_json::Value;

/// A stream of events that survives its node.
pub(crate) struct Follow {
    profile: Profile,
    client: Client,
    host: Option<Host>,
    after: Option<u64>,
    contact: Option<String>,
    quiet: bool,
    unread: bool,
}

/// What to follow.
#[derive(Debug, Clone, Default)]
pub(crate) struct What {
    pub(crate) after: Option<u64>,
    pub(crate) contact: Option<String>,
    /// No messages, only what happens; and the node must be reachable.
    pub(crate) quiet: bool,
    /// Without `after`: begin with what the user has not seen.
    pub(crate) unread: bool,
}

impl Follow {
    pub(crate) fn start(profile: &Profile, what: What) -> Result<Self, Fault> {
        let What { after, contact, quiet, unread } = what;
        let Session { client, host } = Session::open_listening(profile, quiet)?;
        let mut follow = Self { profile: profile.clone(), client, host, after, contact, quiet, unread };
        follow.ask()?;
        Ok(follow)
    }

    fn ask(&mut self) -> Result<(), Fault> {
        self.client.start_listening(Request::Listen {
            after: self.after,
            contact: self.contact.clone(),
            unread: self.unread,
            quiet: self.quiet,
        })
    }

    pub(crate) fn is_host(&self) -> bool {
        self.host.is_some()
    }

    pub(crate) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The next event. When the node ends, this process becomes it, and nothing is missed.
    pub(crate) fn next(&mut self) -> Result<Value, Fault> {
        loop {
            if let Some(event) = self.client.event()? {
                // Unread messages come first, with numbers below the one from which it goes on.
                let number = event.get("arrival").or_else(|| event.get("after")).and_then(Value::as_u64);
                self.after = self.after.max(number);
                return Ok(event);
            }
            if self.host.is_some() {
                return Err(Fault::internal("the node has stopped"));
            }
            let Session { client, host } = Session::open_listening(&self.profile, self.quiet)?;
            (self.client, self.host) = (client, host);
            self.ask()?;
        }
    }
}
