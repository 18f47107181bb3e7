//! [`Console`]: lines on their way to stdout or stderr, which may be a pipe that is not read.
//!
//! A write to a full pipe blocks until it is read, possibly for ever. So a separate thread writes
//! there, and no other thread waits for it for long: lines without room are dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

/// Takes lines and never blocks, except [`Console::flush`], which blocks for a bounded time.
pub(super) struct Console {
    pieces: Sender<Piece>,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

enum Piece {
    Lines(Box<[u8]>),
    /// Dropped when everything before it is written; the other end of the channel notices that.
    Flush {
        _done: Sender<()>,
    },
}

impl Console {
    /// Starts the thread with this name, which writes to `target`. Dropped lines are counted in
    /// `dropped`.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(thread: &str, target: Box<dyn Write + Send>, dropped: Arc<AtomicU64>) -> io::Result<Console> {
        let (pieces, inbox) = crossbeam_channel::unbounded();
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let waiting = waiting_bytes.clone();
        // Not joined: it may be blocked for ever, and ends with the process.
        thread::Builder::new().name(thread.to_owned()).spawn(move || run(target, &inbox, &waiting))?;
        Ok(Console { pieces, waiting_bytes, dropped })
    }
}

impl Write for Console {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let waiting = self.waiting_bytes.fetch_add(lines.len(), Ordering::Relaxed);
        if waiting >= BYTES_MAX || self.pieces.send(Piece::Lines(lines.into())).is_err() {
            self.waiting_bytes.fetch_sub(lines.len(), Ordering::Relaxed);
            let count = lines.iter().filter(|byte| **byte == b'\n').count();
            self.dropped.fetch_add(count as u64, Ordering::Relaxed);
        }
        Ok(lines.len())
    }

    /// Waits until everything is written, for [`FLUSH_TIMEOUT`] at most.
    fn flush(&mut self) -> io::Result<()> {
        let (done, written) = crossbeam_channel::bounded(0);
        if self.pieces.send(Piece::Flush { _done: done }).is_ok() {
            let _ = written.recv_deadline(Instant::now() + FLUSH_TIMEOUT);
        }
        Ok(())
    }
}

fn run(mut target: Box<dyn Write + Send>, inbox: &Receiver<Piece>, waiting_bytes: &AtomicUsize) {
    for piece in inbox {
        if let Piece::Lines(lines) = piece {
            // The operator may have closed the other end on purpose.
            let _ = target.write_all(&lines);
            waiting_bytes.fetch_sub(lines.len(), Ordering::Relaxed);
        }
    }
}

/// The bytes that may wait to be written, in addition to one batch of lines.
const BYTES_MAX: usize = 1024 * 1024;
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().expect("descriptors are left");
        (File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer)))
    }

    #[test]
    fn a_pipe_that_nobody_reads_blocks_nobody_and_what_is_dropped_is_counted() {
        let (mut reader, writer) = pipe();
        let dropped = Arc::new(AtomicU64::new(0));
        let mut stderr = Console::start("log-test", Box::new(writer), dropped.clone()).unwrap();
        // A pipe takes 64 KiB (pipe(7)); the rest waits here, up to the bound.
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let lines = 2 * BYTES_MAX / line.len();
        (0..lines).for_each(|_| stderr.write_all(&line).unwrap());
        stderr.flush().unwrap();
        let lost = dropped.load(Ordering::Relaxed) as usize;
        assert!(lost > 0 && lost < lines, "{lost} of {lines}");

        // Everything that was not dropped is written when the pipe is read.
        drop(stderr);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), (lines - lost) * line.len());
    }
}
