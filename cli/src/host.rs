//! The node that this process runs for its profile, and the socket through which every front end, our own included,
//! speaks to it.

use crate::fault::{Code, Fault};
use crate::hub::Hub;
use crate::limits::{ACCEPT_RETRY, CLIENTS, LINE_BYTES};
use crate::profile::Profile;
use crate::proto::{Request, answer, event, parse};
use crate::service::Service;
use crate::stream::{Begin, Filter};
use peerlink_core::time::WallClock;
use peerlink_core::{Config, Node, Restore};
use peerlink_drivers::{Driver, DriverConfig, Events, Notice};
use peerlink_storage::{OpenError, Opened};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// A running node and its socket. Ends both in good order when dropped.
pub(crate) struct Host {
    service: Arc<Service>,
    socket: PathBuf,
    events: Option<JoinHandle<()>>,
}

/// Why this process does not run the node.
pub(crate) enum NotHost {
    /// Another process does, or is just opening or closing the profile.
    InUse,
    /// The store must be repaired first.
    Damaged(OpenError),
    Fault(Fault),
}

impl From<Fault> for NotHost {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<OpenError> for NotHost {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::InUse { .. } => Self::InUse,
            error @ OpenError::Damaged { .. } => Self::Damaged(error),
            error => Self::Fault(Fault::new(Code::Store, error)),
        }
    }
}

/// The node that this store holds.
///
/// With `listens`, for a while: routers are asked to open a port.
pub(crate) fn restore(profile: &Profile, opened: &Opened, listens: bool) -> Result<Node, NotHost> {
    let secret = profile.identity()?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(Fault::internal)?;
    let settings = profile.settings()?;
    let mapping = settings.mapping && listens;
    let config = Config { datagrams: settings.udp, relay: settings.relay, mapping, ..Config::default() };
    let mut restore = Restore::new(config, &secret, seed);
    opened.check_heads()?;
    opened.restore(|key, value| restore.record(key, value))?;
    restore.start(crate::clock::node(), WallClock(crate::clock::wall_ms())).map_err(|error| {
        NotHost::Damaged(OpenError::Damaged { path: profile.store(), detail: error.to_string() })
    })
}

impl Host {
    /// With `must_listen`, a port that another program has is an error; without, the node only dials.
    pub(crate) fn start(profile: &Profile, must_listen: bool) -> Result<Self, NotHost> {
        let socket = profile.socket()?;
        let opened = peerlink_storage::open(&profile.store())?;
        let node = restore(profile, &opened, must_listen)?;
        let peer = node.peer();
        let (writer, loader, reader) = opened.split();
        let settings = profile.settings()?;
        let relays = settings.home_relays()?;
        let mut listen = settings.listen.clone();
        if !must_listen {
            listen.retain(is_free);
        }
        let (handle, events) =
            Driver::start(node, writer, loader, DriverConfig { listen }).map_err(|error| {
                Fault::internal(format!("{error}; choose another port: peerlink up --listen ADDR:PORT"))
            })?;
        let service = Arc::new(Service {
            peer,
            handle,
            reader,
            hub: Hub::default(),
            relays: Mutex::default(),
            udp: settings.udp,
        });
        let watched = service.clone();
        let events = std::thread::Builder::new()
            .name("events".into())
            .spawn(move || watch(&watched, &events))
            .map_err(Fault::internal)?;
        *running() = Some((service.clone(), socket.clone()));
        // Refused by a node whose store just failed, which says so to whoever wants something of it. What is there can be read.
        let _said_later = service.use_relays(relays).and_then(|()| service.use_servers(settings.stun));
        let host = Self { service, socket, events: Some(events) };
        host.serve()?;
        Ok(host)
    }

    /// Opens the socket. We hold the store, so a socket that is still there is nobody's.
    fn serve(&self) -> Result<(), Fault> {
        let unusable =
            |error: std::io::Error| Fault::new(Code::Store, format!("{}: {error}", self.socket.display()));
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unusable(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&self.socket).map_err(unusable)?;
        fs::set_permissions(&self.socket, fs::Permissions::from_mode(0o600)).map_err(unusable)?;
        let service = self.service.clone();
        let accept = move || {
            let clients = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    // No descriptor is free. It must not become a busy loop.
                    std::thread::sleep(ACCEPT_RETRY);
                    continue;
                };
                let (service, clients) = (service.clone(), clients.clone());
                if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS {
                    clients.fetch_sub(1, Ordering::Relaxed);
                    refuse(&stream);
                    continue;
                }
                let client = move || {
                    serve_client(&service, &stream);
                    clients.fetch_sub(1, Ordering::Relaxed);
                };
                // Without a thread the client sees its connection closed and tries again.
                let _no_thread = std::thread::Builder::new().name("client".into()).spawn(client);
            }
        };
        std::thread::Builder::new().name("socket".into()).spawn(accept).map_err(Fault::internal)?;
        Ok(())
    }

    pub(crate) fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.service.handle.listen_addresses()
    }

    pub(crate) fn store_failed(&self) -> bool {
        self.service.hub.store_failed()
    }
}

/// The node that this process runs, for whoever must end it in good order: a process runs one at most.
fn running() -> MutexGuard<'static, Option<(Arc<Service>, PathBuf)>> {
    static RUNNING: Mutex<Option<(Arc<Service>, PathBuf)>> = Mutex::new(None);
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says goodbye, makes everything durable, and closes the store. Nothing, if no node runs here.
pub(crate) fn shut_down_running() {
    if let Some((service, socket)) = running().take() {
        // First the name, so that nobody finds a node that is going; then the node, which flushes.
        let _gone_already = fs::remove_file(socket);
        service.handle.shutdown();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        shut_down_running();
        if let Some(events) = self.events.take() {
            let _panicked = events.join();
        }
    }
}

fn watch(service: &Service, events: &Events) {
    while let Some(notice) = events.recv() {
        match notice {
            Notice::Event(event) => service.hub.event(event),
            Notice::Lagged => service.hub.lagged(),
        }
    }
    service.hub.close();
}

/// Whether a listener would find its port free. Another family's wildcard may share it.
fn is_free(address: &SocketAddr) -> bool {
    let taken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
    let free = !std::net::TcpListener::bind(address).as_ref().is_err_and(taken);
    if !free {
        eprintln!("peerlink: {address} is taken by another program; not listening there this time");
    }
    free
}

fn refuse(mut stream: &UnixStream) {
    let fault = Fault::new(Code::Busy, format!("more than {CLIENTS} front ends are connected"));
    let _gone = writeln!(stream, "{}", answer(0, &Err(fault)));
}

/// One front end, until it goes.
fn serve_client(service: &Arc<Service>, stream: &UnixStream) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    // A line in one call: piece by piece, a kill in between would leave half of it.
    let mut say = |value: &Value| writer.write_all(format!("{value}\n").as_bytes()).is_ok();
    loop {
        let mut line = String::new();
        let limit = u64::try_from(LINE_BYTES).unwrap_or(u64::MAX);
        match (&mut reader).take(limit).read_line(&mut line) {
            Ok(0) => return,
            Ok(_) if !line.ends_with('\n') => {
                say(&answer(0, &Err(Fault::usage(format!("a line has at most {LINE_BYTES} bytes")))));
                return;
            }
            Ok(_) => {}
            Err(_) => {
                say(&answer(0, &Err(Fault::usage("a line is UTF-8 text"))));
                return;
            }
        }
        match parse(&line) {
            Ok((id, Request::Listen { after, contact, unread, quiet })) => {
                let from = match after {
                    Some(after) => Begin::After(after),
                    None if unread => Begin::Unread,
                    None => Begin::Now,
                };
                let emit = |value: &Value| say(&event(id, value));
                if let Err(fault) = serve_listener(service, stream, from, contact.as_deref(), quiet, emit) {
                    say(&answer(id, &Err(fault)));
                }
                let _gone_already = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            Ok((id, request)) => {
                if !say(&answer(id, &service.answer(request))) {
                    return;
                }
            }
            Err((id, fault)) => {
                if !say(&answer(id, &Err(fault))) {
                    return;
                }
            }
        }
    }
}

/// Tells one front end what comes, until it closes its end: a thread waits for that, so that nobody has to look.
fn serve_listener(
    service: &Arc<Service>,
    stream: &UnixStream,
    from: Begin,
    contact: Option<&str>,
    quiet: bool,
    emit: impl FnMut(&Value) -> bool,
) -> Result<(), Fault> {
    let only = contact.map(|contact| service.find(contact)).transpose()?.map(|info| info.peer);
    let watch = service.watch();
    let (number, hub) = (watch.number, service.clone());
    let mut end = stream.try_clone().map_err(Fault::internal)?;
    let wait = move || {
        let mut ignored = [0; 64];
        while end.read(&mut ignored).is_ok_and(|count| count > 0) {}
        hub.hub.gone(number);
    };
    std::thread::Builder::new().name("hang-up".into()).spawn(wait).map_err(Fault::internal)?;
    service.listen(&watch, from, Filter { only, quiet }, emit)
}
