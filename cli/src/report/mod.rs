//! What became of a program: as data, which is also the JSON, and as text.

mod text;

use std::time::Duration;

use magalloc::{Stats, Unit};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::record::Record;
use crate::run::{Ending, signal_name};

pub(crate) use crate::report::text::{bytes, text};

/// The name and the version of the JSON's form: a larger one means that a reader of this one may go wrong.
pub(crate) const SCHEMA: &str = "magalloc-run";
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// What the numbers of the JSON count.
#[derive(Serialize)]
pub(crate) struct Units {
    /// Of the figures of a record that are no counts: bytes.
    bytes: Vec<&'static str>,
    /// Of the figures of a record that count something.
    counts: Vec<&'static str>,
    /// Of the figures of classes: `block` is in bytes.
    class_counts: [&'static str; 3],
    /// What has `seconds` in its name.
    seconds: [&'static str; 3],
    /// 0 or 1.
    switches: [&'static str; 1],
}

impl Units {
    /// The units of all numbers: those of a record, which this version's library writes, and those of the report.
    pub(crate) fn all() -> Self {
        let figures = Stats::default().figures();
        let named = |wanted: fn(Unit) -> bool| figures.iter().filter(move |of| wanted(of.unit)).map(|of| of.name);
        Self {
            bytes: named(Unit::is_bytes).chain(["block", "resident_peak"]).collect(),
            counts: named(|unit| matches!(unit, Unit::Count | Unit::Total))
                .chain(["minor_faults", "major_faults", "broken_records"])
                .collect(),
            class_counts: ["slabs", "live", "cached"],
            seconds: ["wall_seconds", "user_seconds", "system_seconds"],
            switches: ["disabled"],
        }
    }
}

/// All that is known of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    /// [`SCHEMA`].
    pub(crate) schema: &'static str,
    /// [`SCHEMA_VERSION`].
    pub(crate) schema_version: u32,
    /// The version of the program that wrote this.
    pub(crate) version: &'static str,
    /// [`Units::all`].
    pub(crate) units: Units,
    /// The file that was started.
    pub(crate) program: String,
    /// The program as it was called, and its arguments.
    pub(crate) command: Vec<String>,
    /// The library's file.
    pub(crate) library: String,
    /// The program's process.
    pub(crate) pid: u32,
    /// How it ended.
    pub(crate) ending: Ending,
    /// What the kernel counted.
    pub(crate) usage: Usage,
    /// What the library counted in the program's process.
    pub(crate) record: Option<Record>,
    /// Why there is no record.
    pub(crate) no_record: Option<String>,
    /// The records of the processes that it started, in the order of their ends.
    pub(crate) children: Vec<Record>,
    /// How many records could not be read.
    pub(crate) broken_records: u64,
}

/// What the kernel counted for the program and those of its children that it waited for.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// Seconds from the start to the end.
    pub(crate) wall_seconds: f64,
    /// Seconds of processors in the program.
    pub(crate) user_seconds: f64,
    /// Seconds of processors in the kernel.
    pub(crate) system_seconds: f64,
    /// The most bytes that were resident in one of the processes.
    pub(crate) resident_peak: u64,
    /// Page faults served without a device.
    pub(crate) minor_faults: u64,
    /// Page faults that read from a device.
    pub(crate) major_faults: u64,
}

impl Usage {
    /// Of what `wait4` tells.
    pub(crate) fn new(wall: Duration, usage: &libc::rusage) -> Self {
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        let count = |count: libc::c_long| u64::try_from(count).unwrap_or_default();
        Self {
            wall_seconds: wall.as_secs_f64(),
            user_seconds: seconds(usage.ru_utime),
            system_seconds: seconds(usage.ru_stime),
            // The kernel counts KiB.
            resident_peak: count(usage.ru_maxrss) * 1024,
            minor_faults: count(usage.ru_minflt),
            major_faults: count(usage.ru_majflt),
        }
    }
}

/// `{"exit_code": N, "signal": null}`, or the other way round.
impl Serialize for Ending {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (code, signal) = match *self {
            Self::Code(code) => (Some(code), None),
            Self::Signal(signal) => (None, Some(signal)),
        };
        let mut fields = serializer.serialize_struct("Ending", 3)?;
        fields.serialize_field("exit_code", &code)?;
        fields.serialize_field("signal", &signal)?;
        fields.serialize_field("signal_name", &signal.map(signal_name))?;
        fields.end()
    }
}
