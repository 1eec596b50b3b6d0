//! Child processes and directories that never outlive the test process, however it ends.
//!
//! A static is not dropped at exit, and nothing is dropped on SIGKILL; `PR_SET_PDEATHSIG` is Linux only, needs
//! unsafe code and fires when the *thread* that forked ends. So everything hangs on a pipe: each child runs under
//! a few lines of `sh` that kill it when their standard input closes, which the kernel sees to.

use std::{
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// Arguments: log file, program, its arguments. Prints the program's pid, sends it the signals that are named on
/// standard input, line by line, kills it when standard input closes, and exits with its code.
const SUPERVISE: &str = r#"
exec 3<&0
log=$1; shift
"$@" </dev/null >>"$log" 2>&1 3<&- &
child=$!
echo $child
exec >/dev/null 2>&1
( while read -r signal; do kill -s "$signal" $child; done; kill -s KILL $child ) <&3 &
guard=$!
wait $child; code=$?
kill $guard
exit $code
"#;

/// Argument: a directory. Removes it when standard input closes; tries again while processes that are ending
/// still write to it.
const SWEEP: &str = r#"
while read -r _; do :; done
for _ in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$1" 2>/dev/null
    sleep 0.2
    [ -e "$1" ] || exit 0
done
exit 1
"#;

/// A running program, killed when this is dropped or the test process ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    supervisor: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `command` (program, arguments, environment; its standard streams are not looked at), with its output
    /// appended to `log`.
    pub fn start(name: &str, command: &Command, log: &Path) -> io::Result<Self> {
        let mut supervised = Command::new("sh");
        supervised.args(["-c", SUPERVISE, name]).arg(log);
        supervised
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => supervised.env(key, value),
                None => supervised.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            supervised.current_dir(dir);
        }
        // A group of its own: Ctrl-C in a terminal is for the test process, whose end then ends this.
        supervised
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut supervisor = supervised.spawn()?;
        let mut line = String::new();
        if let Some(stdout) = supervisor.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let pid = line
            .trim()
            .parse()
            .map_err(|_| io::Error::other(format!("{name} did not start: {line:?}")))?;
        Ok(Self {
            name: name.into(),
            supervisor,
            pid,
            log: log.into(),
        })
    }

    /// Of the program itself, not of its supervisor.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file that has the program's output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal by its name without SIG ("TERM", "STOP").
    pub fn signal(&mut self, signal: &str) {
        if let Some(stdin) = &mut self.supervisor.stdin {
            // Fails where the program has ended already: then there is nobody to signal.
            let _ = writeln!(stdin, "{signal}");
        }
    }

    /// The exit code (128 + n where signal n ended it), or `None` while it runs.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = self.supervisor.try_wait().ok().flatten()?;
        Some(status.code().unwrap_or(-1))
    }

    /// Waits for the program to end by itself.
    pub async fn wait(&mut self, within: Duration) -> Option<i32> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(code) = self.exit_code() {
                return Some(code);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }

    /// Seconds of processor time so far, in user and in system mode. `None` once it has ended.
    pub fn cpu(&self) -> Option<f64> {
        /// What Linux counts it in, whatever the kernel's own clock.
        const TICKS_A_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some((ticks(11)? + ticks(12)?) / TICKS_A_SECOND)
    }

    /// Resident memory in bytes; `None` where the program has ended or there is no /proc.
    pub fn rss(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(
            line.trim()
                .trim_end_matches(" kB")
                .trim()
                .parse::<u64>()
                .ok()?
                * 1024,
        )
    }

    /// The last lines of its output, headed by its name.
    pub fn log_tail(&self) -> String {
        format!(
            "--- {} ({}):\n{}",
            self.name,
            self.log.display(),
            tail(&self.log, 4096)
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(path: &Path, bytes: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(bytes)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(text)
    };
    read().map_or_else(
        |e| format!("(no log: {e})"),
        |text| String::from_utf8_lossy(&text).into(),
    )
}

/// A directory of its own under Cargo's target directory, removed when this is dropped or the test process ends.
/// `INFORMERD_KEEP_FILES=1` keeps it, for looking at logs.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    sweeper: Option<Child>,
}

impl Scratch {
    /// `name` is a prefix, for whoever looks into the directory.
    pub fn new(name: &str) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        let sweeper = if std::env::var_os("INFORMERD_KEEP_FILES").is_some_and(|v| v == "1") {
            None
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", SWEEP, "sweep"]).arg(&path);
            command
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::null());
            Some(command.spawn()?)
        };
        Ok(Self { path, sweeper })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it, as text.
    pub fn file(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(mut sweeper) = self.sweeper.take() {
            // Closing its standard input, which wait() does first, is the word to sweep.
            let _ = sweeper.wait();
        }
    }
}

/// A port on 127.0.0.1 that nobody listens on. Taken from below the range that the kernel gives to outgoing
/// connections, so that none can take it before (or while) its server is down.
pub fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 16_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time begin at different places.
    let start = (std::process::id().wrapping_mul(101) % u32::from(COUNT)) as u16;
    loop {
        let at = (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + at)).is_ok() {
            return FIRST + at;
        }
    }
}
