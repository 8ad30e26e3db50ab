//! `peerlink`, the messenger: one node per profile, many front ends.

#![forbid(unsafe_code)]

mod args;
mod chat;
mod client;
mod clock;
mod commands;
mod demo;
mod doctor;
mod fault;
mod host;
mod hub;
mod limits;
mod profile;
mod proto;
mod repair;
mod service;
mod show;
mod signals;
mod span;
mod stream;
mod talk;

use crate::args::Args;
use crate::fault::Code;
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // What a library creates is private as well.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // A crash must not leave keys and messages in a core file, nor may another process of the user look into this one.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _best_effort = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let hidden = rustix::process::DumpableBehavior::NotDumpable;
    let _best_effort = rustix::process::set_dumpable_behavior(hidden);
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let usage = error.use_stderr();
            let _closed = error.print();
            return ExitCode::from(if usage { Code::Usage as u8 } else { 0 });
        }
    };
    let json = args.json;
    let result = commands::run(args);
    signals::yield_to_signal();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            if json {
                let error = serde_json::json!({ "v": 1, "error": { "code": fault.code as u8, "message": fault.message } });
                commands::line(&error.to_string());
            } else {
                eprintln!("peerlink: {}", show::visible(&fault.message, true));
            }
            ExitCode::from(fault.code as u8)
        }
    }
}
