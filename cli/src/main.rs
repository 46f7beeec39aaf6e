//! Starts programs, unchanged, under the library of magalloc; says whether that works here; lists the options.
//!
//! ```text
//! # Modules     arguments, failure, setting: what the user says and is told
//!               library: where libmagalloc.so is, and may it be preloaded
//!               program: where the program is, and will it be
//!               inherited: what the program has of this process's signals
//!               run, record, report: a program under the library, and what it did
//!               doctor: what of this machine matters
//! # Exit codes  the program's; 127 not found, 126 not executable, 125 the system refused something, 2 the arguments
//!               are wrong or the library is missing; `doctor` 1 when preloading does not work
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("magalloc runs on Linux so far");

mod arguments;
mod doctor;
mod failure;
mod inherited;
mod library;
mod program;
mod record;
mod report;
mod run;
mod setting;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Action, Arguments, one_line};
use crate::failure::{Failure, USAGE, complain, words};
use crate::inherited::Inherited;

fn main() -> ExitCode {
    let inherited = Inherited::now();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            complain(one_line(&error));
            return ExitCode::from(USAGE);
        }
        Err(help) => {
            // If nobody reads it, there is nobody to tell.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    act(&arguments.action, inherited).unwrap_or_else(|failure| {
        complain(&failure.reason);
        ExitCode::from(failure.code)
    })
}

fn act(action: &Action, inherited: Inherited) -> Result<ExitCode, Failure> {
    match action {
        Action::Run(arguments) => run::run(arguments, inherited),
        Action::Doctor { json } => doctor::doctor(*json, inherited),
        Action::Options => print(&setting::table()).map(|()| ExitCode::SUCCESS),
        Action::Probe => doctor::probe().map(|()| ExitCode::SUCCESS),
    }
}

/// Unlike `print!` this does not panic when nobody reads.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::system(format!("cannot write to standard output: {}", words(&error))))
}
