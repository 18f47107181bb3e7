//! The program's commands other than serving, as child processes in a folder of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::{io::BufRead, io::BufReader, io::Read};

use crate::services::Database;
use crate::{LONG_PATIENCE, program, wait_within, watchdog};

/// A working directory for commands; removed when dropped.
pub struct Workplace(PathBuf);

/// The result of a command.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` if a signal killed the process.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running command. Dropping it kills it.
pub struct Running {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Workplace {
    /// An empty folder.
    pub fn empty() -> Workplace {
        Workplace(watchdog::new_folder())
    }

    /// A folder with the `mysql.cnf` of this database.
    pub fn on(database: &Database) -> Workplace {
        let workplace = Workplace::empty();
        database.write_cnf(&workplace.0);
        workplace
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap_or_else(|error| panic!("write {name}: {error}"));
    }

    /// Starts `server` with these arguments.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_with(&[], arguments)
    }

    fn start_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Running {
        let mut command = Command::new(program::path());
        program::remove_settings(&mut command);
        command.envs(variables.iter().copied());
        command.args(arguments).current_dir(&self.0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start the command: {error}"));
        watchdog::watch(&child, false);
        let (stdout, reader) = collect(child.stdout.take().expect("stdout is a pipe"));
        let (stderr, other) = collect(child.stderr.take().expect("stderr is a pipe"));
        Running { child, stdout, stderr, readers: vec![reader, other] }
    }

    /// Runs `server` with these arguments until it exits.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    /// Like [`Workplace::run`], with these variables in the environment.
    pub fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
        self.start_with(variables, arguments).wait()
    }

    /// Like [`Workplace::run`], but the command must succeed. Returns what it printed.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}: {}", ended.stdout);
        ended.stdout
    }

    /// Like [`Workplace::run`], but the command must exit with code 2 and one line on stderr.
    /// Returns the line.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(2), 1), "{arguments:?}: {ended:?}");
        ended.stderr.trim_end().to_owned()
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Running {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The output of the command until now.
    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("stdout").clone()
    }

    /// Kills the process with SIGKILL.
    pub fn kill9(mut self) {
        self.child.kill().expect("kill the command");
    }

    /// Waits until the process exits. Panics if that takes too long.
    pub fn wait(mut self) -> Ended {
        let mut status = None;
        wait_within(LONG_PATIENCE, "the command exits", || {
            status = self.child.try_wait().expect("wait for the command");
            status.is_some()
        });
        let status = status.expect("it has exited");
        // A process that the command has started may hold the streams open.
        wait_within(LONG_PATIENCE, "the output of the command ends", || {
            self.readers.iter().all(JoinHandle::is_finished)
        });
        self.readers.drain(..).for_each(|reader| reader.join().expect("read the output"));
        let text = |kept: &Mutex<String>| kept.lock().expect("output").clone();
        Ended { code: status.code(), stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        watchdog::release(&self.child, false);
    }
}

fn collect(stream: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let kept = Arc::new(Mutex::new(String::new()));
    let text = kept.clone();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            text.lock().expect("output").push_str(&format!("{line}\n"));
        }
    });
    (kept, reader)
}
