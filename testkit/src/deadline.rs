//! Waits for processes and sockets, each with a deadline. A process that hangs must fail its own
//! test: without a deadline it stops the whole run.

use std::io::{self, BufRead as _, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::{PATIENCE, wait_within, watchdog};

/// Runs a command and returns its output, like [`Command::output`]. If the command does not exit
/// within `patience`, kills it and panics with its output so far.
///
/// # Errors
/// If the command cannot be started.
pub fn output_within(patience: Duration, command: &mut Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    watchdog::watch(&child, false);
    Ok(rest_within(patience, child))
}

/// Whether a short command of the system succeeds, such as `kill`. Its error output becomes the
/// test's. Panics if the command cannot be started, or does not exit in time.
pub fn succeeds(command: &mut Command) -> bool {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = output_within(PATIENCE, command).unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

/// Waits for a child and returns its output, like [`Child::wait_with_output`]. Otherwise like
/// [`output_within`].
pub fn rest_within(patience: Duration, mut child: Child) -> Output {
    drop(child.stdin.take());
    let deadline = Instant::now() + patience;
    let streams = [child.stdout.take().map(Collected::of), child.stderr.take().map(Collected::of)];
    let text = || streams.iter().flatten().map(Collected::text).collect::<Vec<String>>().join("\n");
    let status = exit(&mut child, deadline).unwrap_or_else(|| panic!("still running after {patience:?}:\n{}", text()));
    // A process that the child has started may hold the streams open.
    let is_whole = || streams.iter().flatten().all(Collected::is_whole);
    while !is_whole() {
        assert!(Instant::now() < deadline, "the output has no end {patience:?} after the start:\n{}", text());
        thread::sleep(LOOK);
    }
    let [stdout, stderr] = streams.map(|stream| stream.as_ref().map(Collected::bytes).unwrap_or_default());
    Output { status, stdout, stderr }
}

/// Waits until a child exits. If it does not exit within `patience`, kills it and panics.
pub fn exit_within(patience: Duration, child: &mut Child) -> ExitStatus {
    exit(child, Instant::now() + patience).unwrap_or_else(|| panic!("still running after {patience:?}"))
}

/// The exit status of a child; `None` if it had to be killed at the deadline.
fn exit(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            watchdog::release(child, false);
            return Some(status);
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            watchdog::release(child, false);
            return None;
        }
        thread::sleep(LOOK);
    }
}

/// Accepts one connection. Panics if none comes within `patience`.
pub fn accept_within(patience: Duration, listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("an option");
    let mut accepted = None;
    wait_within(patience, "somebody connects", || {
        accepted = match listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("accept: {error}"),
        };
        accepted.is_some()
    });
    listener.set_nonblocking(false).expect("an option");
    let stream = accepted.expect("it was accepted");
    stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(patience))).expect("an option");
    stream
}

/// The lines of a stream, as they come. A thread reads them, so that waiting for one can have a
/// deadline.
pub struct Lines(Receiver<String>);

impl Lines {
    /// Begins to read.
    pub fn of(stream: impl Read + Send + 'static) -> Lines {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Lines(receiver)
    }

    /// The next line; `None` at the end of the stream. Panics if neither comes within `patience`.
    pub fn next_within(&self, patience: Duration) -> Option<String> {
        match self.0.recv_timeout(patience) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line within {patience:?}"),
        }
    }

    /// The lines until the end of the stream, for a thread of its own.
    pub fn rest(self) -> impl Iterator<Item = String> {
        self.0.into_iter()
    }
}

/// The bytes of a stream, which a thread reads to the end.
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    fn of(mut stream: impl Read + Send + 'static) -> Collected {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let kept = bytes.clone();
        thread::spawn(move || {
            let mut part = [0; 8192];
            loop {
                match stream.read(&mut part) {
                    Ok(length @ 1..) => kept.lock().expect("output").extend_from_slice(&part[..length]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => return,
                }
            }
        });
        Collected(bytes)
    }

    /// Whether the thread has read everything and is gone.
    fn is_whole(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("output").clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

/// The pause between two looks at a process.
const LOOK: Duration = Duration::from_millis(5);
