//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

/// Starts programs, unchanged, on the magalloc memory allocator.
///
/// The library libmagalloc.so is preloaded into the program, where it replaces malloc, free and
/// their kin. It is looked for in $MAGALLOC_LIB, then beside this program, then in ../lib.
#[derive(Debug, Parser)]
#[command(name = "magalloc", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: Action,
}

const EXAMPLES: &str = "\
Examples:
  magalloc run python3 script.py            the program, with this allocator
  magalloc run --stats -- ls -l             and a summary of its memory at the end
  magalloc doctor                           does it work on this machine?
  magalloc options                          what can be set";

const RUN_EXAMPLES: &str = "\
Examples:
  magalloc run redis-server --port 7000
  magalloc run --stats -- cargo build
  magalloc run --json memory.json --option PURGE_DELAY_MS=100 ./server
  magalloc run --option hard-limit=1G --no-children make
  magalloc run --check ./server             stop it at the first block that is freed twice

Without --stats and --json, this process becomes the program. With them it stays its parent: it
forwards signals to it, and ends as the program ended, by the same exit code or signal. Signals
that the terminal sends reach the program by themselves.

Exit codes: the program's; or 127 the program is not found, 126 it cannot be executed, 125 the
system refused something, 2 the arguments are wrong or the library is missing.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  magalloc doctor
  magalloc doctor --json | jq .preload

Exit codes: 0 a program was started with the library and left a record, 1 that did not work.";

/// What this program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Start a program on this allocator
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArguments),

    /// Say whether the allocator can be preloaded here, and what of this machine matters to it
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor {
        /// Write JSON
        #[arg(long)]
        json: bool,
    },

    /// List what can be set with `run --option`, or as MAGALLOC_<NAME> in the environment
    Options,

    /// Write a completion script for a shell to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },

    /// Write the manual page to standard output: magalloc man | man -l -
    Man,

    /// What `doctor` starts: writes what this process has mapped
    #[command(hide = true)]
    Probe,
}

/// How to start a program.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// At the end, write a readable summary to standard error: peaks, what is live, size classes,
    /// what was given back
    #[arg(long)]
    pub(crate) stats: bool,

    /// At the end, write the same as JSON into FILE; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Set an option; see `magalloc options`. May be given more than once
    #[arg(long = "option", value_name = "NAME=VALUE")]
    pub(crate) options: Vec<OsString>,

    /// End the program, with a line, at the first block that is freed twice and the first free of what
    /// is no block; some 100 ns a call. The same as --option CHECK_FREES=1
    #[arg(long)]
    pub(crate) check: bool,

    /// Only the program itself gets this allocator, not what it starts
    #[arg(long)]
    pub(crate) no_children: bool,

    /// The program, and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// What is wrong with the arguments, as one line.
pub(crate) fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command: run, doctor, options, completions or man (see magalloc --help)".into();
    }
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let lines: Vec<&str> = first.lines().map(str::trim).collect();
    let line = lines.join(" ");
    format!("{} (see magalloc --help)", line.strip_prefix("error: ").unwrap_or(&line))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        Arguments::try_parse_from([&["magalloc"], arguments].concat()).map_err(|error| one_line(&error))
    }

    #[test]
    fn command_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_the_program_is_its_own() {
        for arguments in
            [&["run", "a", "--stats", "-x", "--", "b"][..], &["run", "--", "a", "--stats", "-x", "--", "b"]]
        {
            let Action::Run(run) = parse(arguments).unwrap().action else { panic!("not a run") };
            assert!(!run.stats);
            assert_eq!(run.command, ["a", "--stats", "-x", "--", "b"]);
        }
    }

    #[test]
    fn errors_are_one_line() {
        let line = parse(&["run", "--nope", "a"]).unwrap_err();
        assert_eq!(line, "unexpected argument '--nope' found (see magalloc --help)");
        let line = parse(&["run", "--stats"]).unwrap_err();
        assert!(line.starts_with("the following required arguments were not provided: <PROGRAM>..."), "{line}");
        let line = parse(&[]).unwrap_err();
        assert!(!line.contains('\n'), "{line}");
    }
}
