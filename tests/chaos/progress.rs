//! [`Progress`]: the progress of a run. A terminal shows it on one line that is rewritten; other
//! outputs get a line now and then.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::books::Moment;
use crate::schedule::Kind;
use crate::world::Post;

/// See the [module](self).
pub struct Progress {
    seed: u64,
    length: Duration,
    bar: Option<ProgressBar>,
    next: Instant,
    now: Option<Kind>,
}

impl Progress {
    pub fn new(seed: u64, length: Duration) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is right");
            ProgressBar::new_spinner().with_style(style)
        });
        Progress { seed, length, bar, next: Instant::now(), now: None }
    }

    pub fn begin(&mut self, kind: Kind) {
        self.now = Some(kind);
        self.next = Instant::now();
    }

    pub fn end(&mut self) {
        self.now = None;
    }

    pub fn show(&mut self, now: Moment, posts: &[Post]) {
        if Instant::now() < self.next {
            return;
        }
        self.next += if self.bar.is_some() { Duration::from_millis(200) } else { Duration::from_secs(3) };
        let (mut sent, mut come, mut here) = (0, 0, 0);
        for post in posts {
            let books = post.books();
            sent += books.lots.iter().map(|lot| lot.numbers.len()).sum::<usize>();
            come += books.arrivals.len();
            here += usize::from(books.connections.last().is_some_and(|connection| connection.ended.is_none()));
        }
        let what = self.now.map_or("all is well".to_owned(), |kind| kind.to_string());
        self.say(&format!(
            "chaos: {:.0} of {} s, seed {}: {sent} sent, {come} came, {here} of {} are there; {what}",
            now.as_secs_f64(),
            self.length.as_secs(),
            self.seed,
            posts.len()
        ));
    }

    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(line.to_owned()),
            // Written to stderr directly, so that the text appears although the test passes.
            None => writeln!(io::stderr(), "{line}").expect("print the progress"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
