//! The profile directory: `identity` (the seed), `settings.json`, `store/`, and the socket while a node runs.
//!
//! Directories are 0700 and files 0600. The identity file is `PLID`, a format version, the 32-byte seed, and the
//! first 8 bytes of BLAKE3 over what is before them, in hexadecimal, so that a damaged one is noticed.

use crate::fault::{Code, Fault};
use crate::limits::{SMALL_FILE_BYTES, SOCKET_PATH};
use peerlink_core::identity::{Identity, IdentitySecret};
use peerlink_core::ids::PeerId;
use peerlink_core::limits::{RELAYS, STUN_SERVERS};
use peerlink_core::wire::peer_record::Relay;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const MAGIC: &str = "PLID1";

/// A profile on disk.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) v: u8,
    pub(crate) listen: Vec<SocketAddr>,
    /// Speak over UDP as well as over TCP.
    #[serde(default = "yes")]
    pub(crate) udp: bool,
    /// Ask the router to open a port, while this node listens.
    #[serde(default = "yes")]
    pub(crate) mapping: bool,
    /// Relay packets for others.
    #[serde(default)]
    pub(crate) relay: bool,
    /// The home relays.
    #[serde(default)]
    pub(crate) relays: Vec<String>,
    /// Servers that are asked from where this node is seen.
    #[serde(default)]
    pub(crate) stun: Vec<SocketAddr>,
}

const fn yes() -> bool {
    true
}

impl Settings {
    pub(crate) const fn new(listen: Vec<SocketAddr>) -> Self {
        Self { v: 1, listen, udp: true, mapping: true, relay: false, relays: Vec::new(), stun: Vec::new() }
    }

    pub(crate) fn home_relays(&self) -> Result<Vec<Relay>, Fault> {
        parse_relays(&self.relays.join(","))
    }
}

/// Relays as a person writes them: `PEER@ADDRESS:PORT`, with commas between several; `none` is none.
pub(crate) fn parse_relays(text: &str) -> Result<Vec<Relay>, Fault> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let relays: Result<Vec<Relay>, _> =
        text.split(',').map(str::trim).filter(|relay| !relay.is_empty()).map(str::parse).collect();
    let relays = relays.map_err(|error| Fault::usage(format!("{error}")))?;
    if relays.len() > RELAYS {
        return Err(Fault::usage(format!("at most {RELAYS} relays")));
    }
    Ok(relays)
}

/// STUN servers as a person writes them: `HOST:PORT`, with commas between several; `none` is none.
pub(crate) fn parse_servers(text: &str) -> Result<Vec<SocketAddr>, Fault> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let mut servers = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let found = name.to_socket_addrs();
        let found = found.map_err(|error| Fault::usage(format!("{name}: {error}; write HOST:PORT")))?;
        servers.extend(found.take(1));
    }
    if servers.len() > STUN_SERVERS {
        return Err(Fault::usage(format!("at most {STUN_SERVERS} servers")));
    }
    Ok(servers)
}

impl Profile {
    /// `--profile`, or `$XDG_DATA_HOME/peerlink`, or `~/.local/share/peerlink` (XDG Base Directory Specification).
    pub(crate) fn find(given: Option<PathBuf>) -> Result<Self, Fault> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let dir = given
            .or_else(|| absolute("XDG_DATA_HOME").map(|data| data.join("peerlink")))
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share/peerlink")))
            .ok_or_else(|| Fault::usage("no HOME and no XDG_DATA_HOME: say where with --profile DIR"))?;
        let dir =
            std::path::absolute(&dir).map_err(|error| Fault::usage(format!("{}: {error}", dir.display())))?;
        Ok(Self { dir })
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// The socket of the node that holds this profile. Paths that are too long for a socket get a private directory
    /// under the runtime or temporary directory, named by a hash of the profile's path.
    pub(crate) fn socket(&self) -> Result<PathBuf, Fault> {
        let near = self.dir.join("socket");
        if near.as_os_str().len() <= SOCKET_PATH {
            return Ok(near);
        }
        let hash = blake3::hash(self.dir.as_os_str().as_bytes()).to_hex();
        let name = format!("peerlink-{}", hash.as_str().get(..16).unwrap_or_default());
        let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = base.join(format!("{name}-{}", rustix::process::getuid().as_raw()));
        make_private_dir(&dir)?;
        // The temporary directory is everybody's: somebody else may have put something there first.
        let owned = fs::symlink_metadata(&dir).map_err(|error| unwritable(&dir, &error))?;
        if !owned.is_dir() || owned.uid() != rustix::process::getuid().as_raw() {
            let dir = dir.display();
            return Err(Fault::new(
                Code::Store,
                format!("{dir} is not yours: set XDG_RUNTIME_DIR to a directory of your own"),
            ));
        }
        let far = dir.join("socket");
        if far.as_os_str().len() > SOCKET_PATH {
            let path = far.display();
            return Err(Fault::usage(format!(
                "{path} is too long for a socket: set XDG_RUNTIME_DIR to a shorter path"
            )));
        }
        Ok(far)
    }

    /// Makes what is missing: the directory, an identity, settings. `true` if the identity is new.
    pub(crate) fn init(&self) -> Result<bool, Fault> {
        self.refuse_foreign()?;
        make_private_dir(&self.dir)?;
        let identity = self.dir.join("identity");
        let new = !identity.try_exists().map_err(|error| unwritable(&identity, &error))?;
        if new && self.store().join("format").exists() {
            let path = identity.display();
            return Err(Fault::new(
                Code::Store,
                format!(
                    "{path} is missing, and messages of it are here: bring it back from a backup. Nothing was changed"
                ),
            ));
        }
        if new {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(Fault::internal)?;
            create_private(&identity, encode_identity(&seed).as_bytes())?;
        }
        let settings = self.dir.join("settings.json");
        if !settings.exists() {
            let first = Settings::new(default_listen());
            create_private(&settings, &serde_json::to_vec(&first).map_err(Fault::internal)?)?;
        }
        Ok(new)
    }

    /// A directory that holds other things and no profile is somebody's: nothing in it is touched, its mode neither.
    fn refuse_foreign(&self) -> Result<(), Fault> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unwritable(&self.dir, &error)),
        };
        let mut foreign = None;
        for entry in entries {
            let name = entry.map_err(|error| unwritable(&self.dir, &error))?.file_name();
            // Another process that makes the same profile at this moment, or was killed while it did.
            if !name.to_string_lossy().starts_with("identity.new") {
                foreign.get_or_insert(name);
            }
        }
        let Some(foreign) = foreign else { return Ok(()) };
        let begins_as_ours = |path: &Path| {
            let mut begin = [0; MAGIC.len()];
            File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok()
                && begin == *MAGIC.as_bytes()
        };
        if begins_as_ours(&self.dir.join("identity")) || self.store().join("format").exists() {
            return Ok(());
        }
        let (dir, foreign) = (self.dir.display(), foreign.display());
        Err(Fault::usage(format!(
            "{dir} holds other things ({foreign}) and no profile: choose an empty or a new directory. Nothing was changed"
        )))
    }

    pub(crate) fn identity(&self) -> Result<IdentitySecret, Fault> {
        let path = self.dir.join("identity");
        let file = File::open(&path).map_err(|error| unwritable(&path, &error))?;
        let mode = file.metadata().map_err(|error| unwritable(&path, &error))?.permissions().mode();
        if mode & 0o077 != 0 {
            let path = path.display();
            return Err(Fault::new(Code::Store, format!("{path} can be read by others: chmod 600 {path}")));
        }
        let mut text = String::new();
        let read = file.take(SMALL_FILE_BYTES).read_to_string(&mut text);
        read.ok().and_then(|_| decode_identity(&text)).ok_or_else(|| {
            let path = path.display();
            Fault::new(
                Code::Store,
                format!("{path} is damaged: bring it back from a backup. Nothing was changed"),
            )
        })
    }

    pub(crate) fn peer(&self) -> Result<PeerId, Fault> {
        let identity = Identity::new(&self.identity()?)
            .ok_or_else(|| Fault::new(Code::Store, "the identity is not valid"))?;
        Ok(identity.peer())
    }

    pub(crate) fn settings(&self) -> Result<Settings, Fault> {
        let path = self.dir.join("settings.json");
        let text = fs::read(&path).map_err(|error| unwritable(&path, &error))?;
        let settings: Settings = serde_json::from_slice(&text).map_err(|error| {
            Fault::new(Code::Store, format!("{} cannot be read: {error}", path.display()))
        })?;
        if settings.v != 1 {
            return Err(Fault::new(
                Code::Store,
                format!("{} is of a newer peerlink: update peerlink", path.display()),
            ));
        }
        Ok(settings)
    }

    pub(crate) fn write_settings(&self, settings: &Settings) -> Result<(), Fault> {
        let text = serde_json::to_vec(settings).map_err(Fault::internal)?;
        write_private(&self.dir.join("settings.json"), &text)
    }
}

fn encode_identity(seed: &[u8; 32]) -> String {
    let body = format!("{MAGIC} {}", data_encoding::HEXLOWER.encode(seed));
    format!("{body} {}\n", check(&body))
}

fn check(body: &str) -> String {
    blake3::hash(body.as_bytes()).to_hex().as_str().get(..16).unwrap_or_default().to_owned()
}

fn decode_identity(text: &str) -> Option<IdentitySecret> {
    let (body, sum) = text.trim_end_matches('\n').rsplit_once(' ')?;
    let (magic, seed) = body.split_once(' ')?;
    if magic != MAGIC || check(body) != sum {
        return None;
    }
    IdentitySecret::new(data_encoding::HEXLOWER.decode(seed.as_bytes()).ok()?.try_into().ok()?)
}

/// A port that is free now on IPv4 and, where there is IPv6, on that too; chosen once, kept.
fn default_listen() -> Vec<SocketAddr> {
    let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|listener| listener.local_addr());
    let port = port.map_or(0, |address| address.port());
    vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
}

fn make_private_dir(dir: &Path) -> Result<(), Fault> {
    match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(unwritable(dir, &error)),
    }
    let metadata = fs::metadata(dir).map_err(|error| unwritable(dir, &error))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(|error| unwritable(dir, &error))?;
    }
    Ok(())
}

/// A file beside `path`, of this process alone, synced.
fn temporary(path: &Path, bytes: &[u8]) -> std::io::Result<PathBuf> {
    let temporary = path.with_extension(format!("new{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(temporary)
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Whole or not at all: a temporary file, synced, renamed, and the directory synced.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let write = || {
        fs::rename(temporary(path, bytes)?, path)?;
        sync_parent(path)
    };
    write().map_err(|error| unwritable(path, &error))
}

/// Like [`write_private`], but a file that is there already stays: of two processes that make a profile at the same
/// time, both go on with what the first wrote.
fn create_private(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let write = || {
        let temporary = temporary(path, bytes)?;
        let linked = fs::hard_link(&temporary, path);
        fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => sync_parent(path),
        }
    };
    write().map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Fault {
    let hint = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            ": make it writable, or choose another place with --profile DIR"
        }
        ErrorKind::StorageFull => ": free some space",
        _ => "",
    };
    Fault::new(Code::Store, format!("{}: {error}{hint}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_file_reads_back_and_notices_every_wrong_character() {
        let text = encode_identity(&[0xab; 32]);
        assert_eq!(decode_identity(&text).unwrap().expose(), &[0xab; 32]);
        for at in 0..text.len() - 1 {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            assert!(decode_identity(std::str::from_utf8(&wrong).unwrap()).is_none(), "{at}");
        }
    }
}
