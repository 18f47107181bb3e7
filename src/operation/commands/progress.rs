//! [`CommandProgress`]: shows the progress of a command.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{grouped, say};

/// On a terminal a bar, which is removed at the end; elsewhere a line now and then. The last line
/// is always printed.
pub(super) struct CommandProgress {
    what: String,
    total: u64,
    done: u64,
    begun: Instant,
    /// Present on a terminal.
    bar: Option<ProgressBar>,
}

impl CommandProgress {
    /// Begins work on this number of rows.
    pub(super) fn of_rows(what: &str, total: u64) -> CommandProgress {
        CommandProgress::begin(what, total, "{msg:16} {bar:40} {human_pos} of {human_len} rows, {elapsed} ({eta} left)")
    }

    /// Begins work of unknown size.
    pub(super) fn of_unknown(what: &str) -> CommandProgress {
        CommandProgress::begin(what, 0, "{spinner} {msg}, {elapsed}")
    }

    fn begin(what: &str, total: u64, template: &str) -> CommandProgress {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(template).expect("the template is right");
            let bar = ProgressBar::new(total).with_style(style).with_message(what.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        });
        CommandProgress { what: what.to_owned(), total, done: 0, begun: Instant::now(), bar }
    }

    /// Adds rows that are done.
    pub(super) fn advance(&mut self, rows: u64) {
        let before = self.done;
        self.done += rows;
        match &self.bar {
            Some(bar) => bar.set_position(self.done),
            None if before / ROWS_A_LINE < self.done / ROWS_A_LINE && self.done < self.total => {
                say(format_args!("{}: {} of {} rows", self.what, grouped(self.done), grouped(self.total)));
            }
            None => {}
        }
    }

    /// Ends the work: prints `line` and the duration.
    pub(super) fn finish(self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(format_args!("{line} ({:.1} s)", self.begun.elapsed().as_secs_f64()));
    }
}

impl Drop for CommandProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

const TICK: Duration = Duration::from_millis(100);
const ROWS_A_LINE: u64 = 100_000;
