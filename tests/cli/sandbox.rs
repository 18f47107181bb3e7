//! [`Sandbox`]: a folder for one test of the command line, and the processes started in it.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A folder for one test; the server runs in its subfolder `work`. Removed when the test is over.
pub(crate) struct Sandbox(PathBuf);

impl Sandbox {
    pub(crate) fn new() -> Sandbox {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("raybox-cli-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let sandbox = Sandbox(env::temp_dir().join(name));
        fs::create_dir_all(sandbox.work()).unwrap();
        sandbox
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.work().join(name), text).unwrap();
    }

    /// The text of all files in `logs`.
    pub(crate) fn log(&self) -> String {
        let files =
            fs::read_dir(self.work().join("logs")).map(|files| files.map(|file| file.unwrap().path()).collect());
        let mut files: Vec<PathBuf> = files.unwrap_or_default();
        files.sort();
        files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
    }

    pub(crate) fn start(&self, args: &str, env: &[(&str, &str)]) -> Process {
        let mut command = self.command(env!("CARGO_BIN_EXE_server"));
        command.args(args.split_whitespace()).envs(env.iter().copied());
        Process::start(command)
    }

    /// A command in the working folder, without the settings of the developer's environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.work());
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAYBOX_")) {
            command.env_remove(name);
        }
        command
    }

    /// Starts a server, which must run, and waits for its banner.
    pub(crate) fn serve(&self, args: &str, env: &[(&str, &str)]) -> (Process, String) {
        let mut process = self.start(args, env);
        match process.stdout.recv_timeout(PATIENCE) {
            Ok(banner) => (process, banner),
            Err(_) => panic!("no banner, but {:?}", process.end()),
        }
    }

    /// Starts a server, which must refuse to run. Returns the one line on stderr.
    pub(crate) fn refused(&self, args: &str, env: &[(&str, &str)]) -> String {
        let end = self.start(args, env).end();
        assert_eq!(end.code, Some(2), "{args}: {end:?}");
        assert_eq!(end.stdout.len(), 0, "{args}: {end:?}");
        assert_eq!(end.stderr.len(), 1, "{args}: {end:?}");
        end.stderr.into_iter().next().unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A started server. Dropping it kills the server if it still runs.
pub(crate) struct Process {
    child: Child,
    pub(crate) stdout: Receiver<String>,
    stderr: Receiver<String>,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Process { child, stdout, stderr }
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.child.id());
        assert!(testkit::succeeds(Command::new("sh").args(["-c", &kill])));
    }

    /// Waits until the process exits. Both its output streams stay open until then.
    pub(crate) fn end(&mut self) -> End {
        let deadline = Instant::now() + PATIENCE;
        let (stdout, stderr) = (self.rest(&self.stdout, deadline), self.rest(&self.stderr, deadline));
        if Instant::now() >= deadline {
            let _ = self.child.kill();
            panic!("still running after {PATIENCE:?}: {stdout:?} {stderr:?}");
        }
        End { code: self.child.wait().unwrap().code(), stdout, stderr }
    }

    fn rest(&self, lines: &Receiver<String>, deadline: Instant) -> Vec<String> {
        let next = || lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok();
        std::iter::from_fn(next).collect()
    }

    /// Stops a running server, which must not have printed any complaint.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let end = self.end();
        assert_eq!((end.code, end.stderr.as_slice()), (Some(0), [].as_slice()), "{end:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A channel with the lines of a stream.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

/// The address in a banner.
pub(crate) fn address(banner: &str) -> &str {
    let address = banner.strip_prefix(concat!("raybox ", env!("CARGO_PKG_VERSION"), " listening on "));
    address.and_then(|rest| rest.split_once(',')).unwrap_or_else(|| panic!("not a banner: {banner}")).0
}

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::yield_now();
    }
}
