//! The progress of the load on stderr: a bar on a terminal, else a plain line now and then.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Plain lines per load, at most. A short load has one per second.
const LINES: u32 = 10;

/// The progress of one load.
pub(crate) struct Progress {
    bar: ProgressBar,
    total: Duration,
    next_line: Duration,
}

impl Progress {
    /// A load that will take `total`.
    pub(crate) fn new(total: Duration) -> Self {
        let bar = ProgressBar::new(millis(total));
        let style = ProgressStyle::with_template("[{bar:24}] {msg}");
        bar.set_style(style.expect("the template is constant").progress_chars("=> "));
        Self { bar, total, next_line: Self::line_every(total) }
    }

    /// Shows that `elapsed` is over, with the line that `text` makes.
    pub(crate) fn show(&mut self, elapsed: Duration, text: impl FnOnce() -> String) {
        let (seconds, total) = (elapsed.as_secs(), self.total.as_secs());
        if !self.bar.is_hidden() {
            self.bar.set_position(millis(elapsed));
            self.bar.set_message(format!("{seconds} s of {total} s, {}", text()));
        } else if elapsed >= self.next_line {
            self.next_line += Self::line_every(self.total);
            eprintln!("magalloc-server: {seconds} s of {total} s, {}", text());
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn line_every(total: Duration) -> Duration {
        (total / LINES).max(Duration::from_secs(1))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
