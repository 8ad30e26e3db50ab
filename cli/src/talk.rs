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
}

impl Follow {
    pub(crate) fn start(
        profile: &Profile,
        after: Option<u64>,
        contact: Option<String>,
        quiet: bool,
    ) -> Result<Self, Fault> {
        let Session { client, host } = Session::open(profile)?;
        let mut follow = Self { profile: profile.clone(), client, host, after, contact, quiet };
        follow.ask()?;
        Ok(follow)
    }

    fn ask(&mut self) -> Result<(), Fault> {
        let request = Request::Listen { after: self.after, contact: self.contact.clone(), quiet: self.quiet };
        self.client.start_listening(request)
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
                let number = event.get("arrival").or_else(|| event.get("after")).and_then(Value::as_u64);
                if let Some(number) = number.filter(|number| *number > 0 || self.after.is_none()) {
                    self.after = Some(number);
                }
                return Ok(event);
            }
            if self.host.is_some() {
                return Err(Fault::internal("the node has stopped"));
            }
            let Session { client, host } = Session::open(&self.profile)?;
            (self.client, self.host) = (client, host);
            self.ask()?;
        }
    }
}
