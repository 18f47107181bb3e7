//! Kills the processes that the tests started, even if the test process is killed.
//!
//! Every server is killed when its value is dropped, also on a panic. But a test process that is
//! killed drops nothing. Therefore a shell reads from the test process, notices when it exits, and
//! then kills the remaining processes and removes the folders of this run. (`PR_SET_PDEATHSIG`
//! would not do: it fires at the end of the *thread* that started a child.)

use std::io::Write;
use std::path::PathBuf;
use std::process::{self, Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::{env, fs};

/// Makes the watchdog kill `child` if this process exits before it [releases](release) the child.
/// If the child leads a process group, the whole group is killed.
pub fn watch(child: &Child, leads_group: bool) {
    tell(&format!("+{}", target(child, leads_group)));
}

/// Makes the watchdog forget a process that has exited. Call this once its status was taken,
/// because the PID may then belong to another process.
pub fn release(child: &Child, leads_group: bool) {
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

/// The watchdog's script: it ignores the signals of a terminal. At the end of its input it kills
/// the remaining processes and removes the remaining folders.
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
