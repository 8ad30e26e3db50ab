//! `repair`: the way on from a store that is damaged. It is kept aside, a new one holds what can be read of it, and the
//! contacts give back the rest.

use crate::commands::{line, ndjson};
use crate::fault::{Code, Fault};
use crate::host;
use crate::profile::Profile;
use peerlink_storage::{OpenError, Repaired};
use serde_json::json;
use std::path::PathBuf;

pub(crate) fn run(profile: &Profile, json: bool) -> Result<(), Fault> {
    let damage = match look(profile) {
        Ok(()) => {
            if json {
                ndjson(json!({ "repaired": false }));
            } else {
                line("The store is whole: there is nothing to repair.");
            }
            return Ok(());
        }
        Err(OpenError::InUse { .. }) => return Err(in_use(profile)),
        Err(error @ OpenError::Damaged { .. }) => error,
        Err(error) => return Err(Fault::new(Code::Store, error)),
    };
    let aside = aside(profile);
    let repaired = peerlink_storage::repair(&profile.store(), &aside, profile.peer()?);
    let repaired = repaired.map_err(|error| match error {
        OpenError::InUse { .. } => in_use(profile),
        error => Fault::new(Code::Store, format!("the repair failed, nothing was changed: {error}")),
    })?;
    if json {
        ndjson(json!({
            "repaired": true, "damage": damage.to_string(), "aside": aside.display().to_string(),
            "contacts": repaired.contacts, "messages": repaired.entries, "missing": repaired.missing,
            "lost_commits": repaired.lost_commits, "unreadable": repaired.unreadable,
        }));
    } else {
        tell(profile, &damage, &aside.display().to_string(), &repaired);
    }
    Ok(())
}

/// All that a start looks at, and every record.
fn look(profile: &Profile) -> Result<(), OpenError> {
    peerlink_storage::check(&profile.store())?;
    let opened = peerlink_storage::open(&profile.store())?;
    match host::restore(profile, &opened, false) {
        Err(host::NotHost::Damaged(error)) => Err(error),
        Err(_) | Ok(_) => Ok(()),
    }
}

/// A name beside the store that nothing has yet.
fn aside(profile: &Profile) -> PathBuf {
    let stem = format!("store-damaged-{}", crate::show::file_time(crate::clock::wall_ms()));
    let mut aside = profile.dir.join(&stem);
    for number in 2_u32.. {
        if !aside.exists() {
            break;
        }
        aside = profile.dir.join(format!("{stem}-{number}"));
    }
    aside
}

fn in_use(profile: &Profile) -> Fault {
    let dir = profile.dir.display();
    Fault::new(Code::Busy, format!("another process holds the profile {dir}: end it, then repair"))
}

fn tell(profile: &Profile, damage: &OpenError, aside: &str, repaired: &Repaired) {
    line(&format!("Found: {damage}."));
    line(&format!("It is now {aside}, as it was. Nothing was deleted."));
    let Repaired { contacts, entries, missing, lost_commits, unreadable } = repaired;
    line(&format!("A new store has what could be read of it: {contacts} contacts, {entries} messages."));
    if !unreadable.is_empty() {
        line(&format!("Not readable: {}.", unreadable.join(", ")));
    }
    if *missing > 0 {
        line(&format!("{missing} messages are known to be missing."));
    }
    if *lost_commits > 0 {
        line(&format!("The last {lost_commits} changes are missing, with what was in them."));
    }
    let dir = profile.dir.display();
    line("What your contacts have of it comes back from them when they are connected:");
    line(&format!("  peerlink --profile {dir} up"));
    if *contacts == 0 || *lost_commits > 0 {
        line("A contact that is missing in `peerlink contacts` needs a new ticket, yours or theirs.");
    }
}
