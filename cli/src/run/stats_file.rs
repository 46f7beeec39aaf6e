//! The file into which processes write their records.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::failure::{Failure, words};
use crate::record::{Records, parse};
use crate::setting::{Setting, variable};

/// The option that names the file.
pub(crate) const OPTION: &str = "STATS_FILE";

/// A file of records, of which those from `start` on are of this run.
pub(crate) struct StatsFile {
    path: PathBuf,
    start: u64,
    /// Removed with this, if the file is nobody else's.
    _folder: Option<TempDir>,
}

impl StatsFile {
    /// The user's, from an option or the environment, or else one of our own.
    pub(crate) fn new(settings: &[Setting]) -> Result<Self, Failure> {
        let option = settings.iter().rev().find(|setting| setting.name == OPTION).map(|setting| setting.value.clone());
        let chosen = option.or_else(|| env::var_os(variable(OPTION))).filter(|path| !path.is_empty());
        let Some(path) = chosen else { return Self::temporary() };
        // The program may end in another folder.
        let path = std::path::absolute(&path)
            .map_err(|error| Failure::usage(format!("{OPTION}={}: {}", path.display(), words(&error))))?;
        let start = fs::metadata(&path).map_or(0, |found| found.len());
        Ok(Self { path, start, _folder: None })
    }

    fn temporary() -> Result<Self, Failure> {
        let place = env::temp_dir();
        let made = std::path::absolute(&place).and_then(|place| TempDir::with_prefix_in("magalloc-", place));
        let folder = made.map_err(|error| {
            Failure::system(format!("{}: no folder for the statistics: {}", place.display(), words(&error)))
        })?;
        Ok(Self { path: folder.path().join("records"), start: 0, _folder: Some(folder) })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was written since this was made. A file that is not there is an empty one.
    pub(crate) fn read(&self) -> Records {
        let read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            std::io::Result::Ok(bytes)
        };
        parse(&read().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "magalloc-stats 1\npid 1\nend\n";

    #[test]
    fn own_file_goes_with_its_folder() {
        let file = StatsFile::temporary().unwrap();
        assert_eq!(file.read(), Records::default());
        fs::write(file.path(), RECORD).unwrap();
        assert_eq!(file.read().whole.len(), 1);
        let path = file.path().to_path_buf();
        drop(file);
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn older_records_of_a_chosen_file_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, RECORD).unwrap();
        let setting = |value: PathBuf| Setting { name: OPTION, value: value.into() };
        let file = StatsFile::new(&[setting("/nonexistent".into()), setting(path.clone())]).unwrap();
        assert_eq!(file.path(), path);
        assert_eq!(file.read(), Records::default());
        fs::write(&path, format!("{RECORD}{RECORD}")).unwrap();
        assert_eq!(file.read().whole.len(), 1);
        drop(file);
        assert!(path.exists());
    }
}
