//! A front end's side of the socket, and the rule of who runs the node: whoever comes first.

use crate::fault::{Code, Fault};
use crate::host::{Host, NotHost};
use crate::limits::{HELLO, RETRY, TAKE_OVER};
use crate::profile::Profile;
use crate::proto::{Envelope, Request, VERSION, unwrap};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;

pub(crate) struct Client {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    next: u64,
}

impl Client {
    /// `None`: no node answers there, or one that is just ending.
    fn connect(profile: &Profile) -> Result<Option<Self>, Fault> {
        let socket = profile.socket()?;
        let Ok(stream) = UnixStream::connect(&socket) else { return Ok(None) };
        let writer = stream.try_clone().map_err(Fault::internal)?;
        let mut client = Self { reader: BufReader::new(stream), writer, next: 1 };
        let patience = |client: &Self, time| client.writer.set_read_timeout(time).map_err(Fault::internal);
        patience(&client, Some(HELLO))?;
        if client.put(Request::Id).is_err() {
            return Ok(None);
        }
        let mut line = String::new();
        match client.reader.read_line(&mut line) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let dir = profile.dir.display();
                return Err(Fault::new(
                    Code::Busy,
                    format!("the process that holds the profile {dir} does not answer; end it and try again"),
                ));
            }
            Ok(_) if line.ends_with('\n') => {}
            // The end, or the beginning of an answer whose author was killed while it wrote.
            Ok(_) | Err(_) => return Ok(None),
        }
        unwrap(serde_json::from_str(&line).map_err(Fault::internal)?)?;
        patience(&client, None)?;
        Ok(Some(client))
    }

    fn put(&mut self, request: Request) -> Result<(), Fault> {
        let envelope = Envelope { v: VERSION, id: self.next, request };
        self.next += 1;
        let line = serde_json::to_string(&envelope).map_err(Fault::internal)?;
        self.writer.write_all(format!("{line}\n").as_bytes()).map_err(|_| gone())
    }

    fn line(&mut self) -> Result<Option<Value>, Fault> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => serde_json::from_str(&line).map(Some).map_err(Fault::internal),
            // The end, or the beginning of a line whose author was killed while it wrote.
            Ok(_) | Err(_) => Ok(None),
        }
    }

    pub(crate) fn call(&mut self, request: Request) -> Result<Value, Fault> {
        self.put(request)?;
        unwrap(self.line()?.ok_or_else(gone)?)
    }

    pub(crate) fn start_listening(&mut self, request: Request) -> Result<(), Fault> {
        self.put(request)
    }

    /// The next event; `None` if the node is gone.
    pub(crate) fn event(&mut self) -> Result<Option<Value>, Fault> {
        let Some(mut line) = self.line()? else { return Ok(None) };
        match line.get_mut("event") {
            Some(event) => Ok(Some(event.take())),
            None => unwrap(line).map(|_| None),
        }
    }
}

fn gone() -> Fault {
    Fault::new(Code::Internal, "the node that held this profile has ended; try again")
}

/// A node to talk to, perhaps our own.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) host: Option<Host>,
}

impl Session {
    /// The node that holds the profile; if none does, this process becomes it.
    pub(crate) fn open(profile: &Profile) -> Result<Self, Fault> {
        Self::open_listening(profile, false)
    }

    /// With `must_listen`, a node of our own that cannot listen is an error.
    pub(crate) fn open_listening(profile: &Profile, must_listen: bool) -> Result<Self, Fault> {
        let until = crate::clock::monotonic() + TAKE_OVER;
        loop {
            if let Some(client) = Client::connect(profile)? {
                return Ok(Self { client, host: None });
            }
            match Host::start(profile, must_listen) {
                Ok(host) => {
                    let client = Client::connect(profile)?.ok_or_else(gone)?;
                    return Ok(Self { client, host: Some(host) });
                }
                Err(NotHost::Fault(fault)) => return Err(fault),
                Err(NotHost::Damaged(error)) => {
                    let dir = profile.dir.display();
                    return Err(Fault::new(
                        Code::Store,
                        format!(
                            "{error}. To go on: peerlink --profile {dir} repair. It keeps the damaged store beside a \
                             new one, which gets all that can be read; your contacts give back the rest"
                        ),
                    ));
                }
                Err(NotHost::InUse) if crate::clock::monotonic() < until => {
                    // It is opening, closing, or was just killed and its lock is going.
                    std::thread::sleep(RETRY);
                }
                Err(NotHost::InUse) => {
                    let dir = profile.dir.display();
                    return Err(Fault::new(
                        Code::Busy,
                        format!(
                            "the profile {dir} is in use by a process that does not answer; end it and try again"
                        ),
                    ));
                }
            }
        }
    }

    /// Another connection to the same node.
    pub(crate) fn another(profile: &Profile) -> Result<Client, Fault> {
        Client::connect(profile)?.ok_or_else(gone)
    }

    /// The same, for who knows that somebody is about to hold the profile: a front end that takes over.
    pub(crate) fn another_soon(profile: &Profile) -> Result<Client, Fault> {
        let until = crate::clock::monotonic() + TAKE_OVER;
        loop {
            match Client::connect(profile)? {
                Some(client) => return Ok(client),
                None if crate::clock::monotonic() < until => std::thread::sleep(RETRY),
                None => return Err(gone()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_of_a_node_that_was_killed_is_its_end() {
        let (near, far) = UnixStream::pair().unwrap();
        let writer = near.try_clone().unwrap();
        let mut client = Client { reader: BufReader::new(near), writer, next: 1 };
        (&far)
            .write_all(b"{\"v\":1,\"id\":1,\"event\":{\"kind\":\"listening\"}}\n{\"v\":1,\"id\":1,\"ev")
            .unwrap();
        drop(far);
        assert_eq!(client.event().unwrap().unwrap()["kind"], "listening");
        assert_eq!(client.event().unwrap(), None);
    }
}
