//! The power goes: a file system on a loop device is shut down while the program runs, and mounted again.

use crate::people::{Choices, Person, Process, judge, pair_in, report, settle, times};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// A file system in a file.
struct Disk {
    device: String,
    at: PathBuf,
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")))
}

impl Disk {
    fn new(dir: &Path) -> Result<Self, String> {
        let (image, at) = (dir.join("image"), dir.join("disk"));
        File::create(&image).and_then(|file| file.set_len(256 << 20)).unwrap();
        fs::create_dir(&at).unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()])?;
        let device = run("losetup", &["-f", "--show", image.to_str().unwrap()])?;
        let disk = Self { device, at };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &[&self.device, self.at.to_str().unwrap()]).map(drop)
    }

    /// What is not synced is lost from now on.
    fn cut(&self) -> Result<(), String> {
        run("xfs_io", &["-x", "-c", "shutdown", self.at.to_str().unwrap()]).map(drop)
    }

    fn unmount(&self) {
        for _ in 0..200 {
            if run("umount", &[self.at.to_str().unwrap()]).is_ok() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
        let _gone_already = run("losetup", &["-d", &self.device]);
    }
}

/// The program itself, also when another one runs it.
fn id(process: &Process, wrapped: bool) -> Pid {
    let id = process.0.id();
    if !wrapped {
        return Pid::from_child(&process.0);
    }
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
}

/// One conversation that ends with the power of Bob's disk.
fn cycle(disk: &Disk, alice: &mut Person, bob: &mut Person, wrapper: &[&str], pause: u64) {
    let alice_up = alice.up();
    let mut bob_up = Process(bob.wrapped(wrapper, &["up"]).spawn().unwrap());
    bob.write(20, || true);
    alice.write(10, || true);
    bob.write(20, || true);
    sleep(Duration::from_micros(pause));
    let id = id(&bob_up, !wrapper.is_empty());
    // What it hears while the disk goes would not be the truth.
    kill_process(id, Signal::STOP).unwrap();
    disk.cut().unwrap();
    kill_process(id, Signal::KILL).unwrap();
    bob_up.0.wait().unwrap();
    alice_up.kill();
    disk.unmount();
    disk.mount().unwrap();
}

#[test]
fn a_loss_of_power_loses_nothing_that_was_promised() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, tool) = match (Disk::new(dir.path()), run("xfs_io", &["-V"])) {
        (Ok(disk), Ok(_)) => (disk, "xfs_io"),
        (Err(why), _) | (_, Err(why)) => return report(&format!("SKIPPED power: {why}")),
    };
    let [mut alice, mut bob] = pair_in([dir.path().join("alice"), disk.at.join("bob")]);
    let cycles = times(4, 200);
    let mut choices = Choices(0x90e4);
    for _ in 0..cycles {
        cycle(&disk, &mut alice, &mut bob, &[], choices.next() & 0xffff);
        let persons = [alice, bob];
        let up = persons.each_ref().map(Person::up);
        settle(&persons);
        drop(up);
        assert_eq!(judge(&persons), Ok(()));
        [alice, bob] = persons;
    }
    // The control: a disk that says it synced and does not.
    if run("strace", &["-V"]).is_err() {
        return report("SKIPPED power: no strace for the control");
    }
    let wrapper = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        "inject=fsync,fdatasync:retval=0",
    ];
    cycle(&disk, &mut alice, &mut bob, &wrapper, 0);
    let persons = [alice, bob];
    let control = judge(&persons).unwrap_err();
    let [one, other] = persons.each_ref().map(|person| person.promised.len());
    report(&format!("RAN power: {cycles} times by {tool}, {one} and {other} messages; control: {control}"));
}
