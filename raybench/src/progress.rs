//! The line that shows what a run is doing, on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Shown on standard error, if that is a terminal and `quiet` does not forbid it.
    pub(crate) fn new(quiet: bool) -> Progress {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress { bar }
    }

    /// Begins a stage of this many steps.
    pub(crate) fn stage(&self, what: &str, steps: usize) {
        if self.bar.is_finished() {
            // A later round draws over the bar of the round before.
            self.bar.reset();
        }
        self.bar.set_message(what.to_owned());
        self.bar.set_length(steps as u64);
        self.bar.set_position(0);
    }

    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }

    pub(crate) fn reach(&self, step: u64) {
        self.bar.set_position(step);
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_round_is_shown_too() {
        let progress = Progress::new(true);
        progress.stage("measuring", 5);
        progress.reach(5);
        progress.clear();
        progress.stage("measuring", 5);
        assert!(!progress.bar.is_finished());
        assert_eq!((progress.bar.position(), progress.bar.length()), (0, Some(5)));
    }
}
