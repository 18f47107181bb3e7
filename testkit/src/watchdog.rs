//! Kills the processes that the tests started, even if the test process is killed.
//!
//! Every server is killed when the value that represents it is dropped, also on a panic. A test
//! process that is killed drops nothing. Then a shell, which reads from the test process and so
//! notices its exit, kills the remaining processes and removes the folders of this run.
//! (`PR_SET_PDEATHSIG` would not do: it fires at the end of the *thread* that started a child.)

use std::io::Write;
use std::path::PathBuf;
use std::process::{self, Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::{env, fs};

/// Has `child` killed if this process exits before [releasing](release) it; with its process group
/// if it leads one.
pub(crate) fn watch(child: &Child, leads_group: bool) {
    tell(&format!("+{}", target(child, leads_group)));
}

/// Forgets a process that has exited. Call it once its status was taken, because another process
/// may then get its PID.
pub(crate) fn release(child: &Child, leads_group: bool) {
    tell(&format!("-{}", target(child, leads_group)));
}

/// The target in the form that kill(1) takes.
fn target(child: &Child, leads_group: bool) -> String {
    format!("{}{}", if leads_group { "-" } else { "" }, child.id())
}

/// A new empty folder, which is removed when this process exits, if not before.
pub(crate) fn new_folder() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    drop(watchdog());
    let folder = PathBuf::from(format!("{}{number}", folder_prefix()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("create a temporary folder");
    folder
}

fn folder_prefix() -> String {
    let prefix = env::temp_dir().join(format!("raybox-test-{}-", process::id()));
    prefix.into_os_string().into_string().expect("the temporary folder has a printable name")
}

fn tell(line: &str) {
    writeln!(watchdog(), "{line}").expect("the watchdog listens");
}

/// The input of this process's watchdog. It is closed when this process exits in any way.
fn watchdog() -> MutexGuard<'static, ChildStdin> {
    static INPUT: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let input = INPUT.get_or_init(|| {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).arg(folder_prefix());
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Mutex::new(spawned.expect("start the watchdog").stdin.take().expect("its input is a pipe"))
    });
    input.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Ignores the signals of a terminal; at the end of its input it kills and removes what is left.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
watched=' '
while read -r line; do
    pid=${line#?}
    case $line$watched in
        +*) watched="$watched$pid " ;;
        -*" $pid "*) watched="${watched%%" $pid "*} ${watched#*" $pid "}" ;;
    esac
done
for pid in $watched; do kill -9 "$pid"; done
for attempt in 1 2 3 4 5; do rm -rf "$0"* && break; sleep 1; done
"#;
