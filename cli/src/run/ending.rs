//! How a program ended, and how to end the same way.

use std::fmt;
use std::process::ExitCode;

use crate::run::process::kill_self;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself, with this exit code.
    Code(u8),
    /// By this signal.
    Signal(libc::c_int),
}

impl Ending {
    /// Of the status that the kernel keeps.
    pub(crate) fn of(status: libc::c_int) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            // Eight bits: the kernel keeps no more.
            Self::Code(libc::WEXITSTATUS(status) as u8)
        }
    }

    /// Ends this process in the same way: by the signal, or else by returning the exit code.
    pub(crate) fn repeat(self) -> ExitCode {
        match self {
            Self::Code(code) => ExitCode::from(code),
            Self::Signal(signal) => {
                kill_self(signal);
                // The first process of a container does not die by itself. What a shell would make of it:
                u8::try_from(128 + signal).map_or(ExitCode::FAILURE, ExitCode::from)
            }
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "{}", signal_name(*signal)),
        }
    }
}

/// Its name, such as `SIGTERM`, or its number.
pub(crate) fn signal_name(signal: libc::c_int) -> String {
    let name = match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGALRM => "SIGALRM",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGIO => "SIGIO",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGPROF => "SIGPROF",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGVTALRM => "SIGVTALRM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        _ => return format!("signal {signal}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_code_or_signal() {
        assert_eq!(Ending::of(0), Ending::Code(0));
        assert_eq!(Ending::of(255 << 8), Ending::Code(255));
        assert_eq!(Ending::of(libc::SIGKILL), Ending::Signal(libc::SIGKILL));
        assert_eq!(Ending::of(libc::SIGSEGV | 0x80), Ending::Signal(libc::SIGSEGV), "with a core");
    }

    #[test]
    fn ending_has_words() {
        assert_eq!(Ending::Code(3).to_string(), "exit code 3");
        assert_eq!(Ending::Signal(libc::SIGTERM).to_string(), "SIGTERM");
        assert_eq!(Ending::Signal(50).to_string(), "signal 50");
    }
}
