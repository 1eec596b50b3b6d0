//! Server and clients in processes of their own, so that what one of them costs can be told from the others'.
//!
//! A bench starts itself again with a role as its first argument. Parent and child talk in lines.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// A child process. Ends with its handle.
pub struct Role {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Role {
    /// Starts this program in a role, with arguments that [`Role::arguments`] gives there.
    pub fn start(arguments: &[&str]) -> Self {
        let program = env::current_exe().expect("the program's own path");
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts again");
        Self {
            input: child.stdin.take().expect("it is piped"),
            output: BufReader::new(child.stdout.take().expect("it is piped")),
            child,
        }
    }

    /// In a child: the role and what follows it. `None` in the parent, which cargo gives options only.
    pub fn arguments() -> Option<Vec<String>> {
        let arguments: Vec<_> = env::args().skip(1).collect();
        let is_role = arguments.first().is_some_and(|role| !role.starts_with('-'));
        is_role.then_some(arguments)
    }

    /// Says a line to the child.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the child lives");
    }

    /// The child's next line.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the child speaks");
        assert!(!line.is_empty(), "the child ended early");
        line.trim().to_owned()
    }

    /// Seconds of processor time so far, in user and in system mode.
    pub fn cpu(&self) -> f64 {
        /// What Linux counts it in, whatever the kernel's own clock.
        const TICKS_A_SECOND: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("/proc");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
        (ticks(11) + ticks(12)) / TICKS_A_SECOND
    }

    /// Resident memory in MiB.
    pub fn rss(&self) -> f64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("/proc");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        kilobytes
            .and_then(|number| number.parse::<f64>().ok())
            .expect("a number")
            / 1024.0
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a child: the parent's next line; `None` once the parent is gone.
pub fn order() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(1..) => Some(line.trim().to_owned()),
        _ => None,
    }
}
