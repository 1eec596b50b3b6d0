//! A Python of the tests' own, with the package in clients/python installed as people install it.
//!
//! Made once per content under `target/python`, as the Go programs are.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Once, OnceLock},
};

use tokio::time::Instant;

use super::{
    Error,
    binaries::{hash_tree, is_required, say, target},
};

/// The Python of a virtual environment that has the package. `None`, after a loud line, where there is no Python 3.10
/// with venv; with INFORMERD_REQUIRE_CLUSTER=1 that is a failure, as it is where the package cannot be installed.
pub async fn python() -> Option<PathBuf> {
    static LOUD: Once = Once::new();
    if !has_python() {
        let how = "install Python 3.10 or later with its venv module (python3-venv on Debian)";
        if is_required() {
            panic!(
                "INFORMERD_REQUIRE_CLUSTER=1, and there is no Python to run clients/python with: {how}"
            );
        }
        LOUD.call_once(|| {
            say(&format!(
                "SKIPPING THE TESTS OF THE PYTHON CLIENT: no usable `python3`. To run them, {how}."
            ));
        });
        return None;
    }
    let made = tokio::task::spawn_blocking(make)
        .await
        .expect("it does not panic");
    match made {
        Ok(python) => Some(python),
        Err(why) => panic!("no Python for the tests: {why}"),
    }
}

fn has_python() -> bool {
    static PYTHON: OnceLock<bool> = OnceLock::new();
    *PYTHON.get_or_init(|| {
        let check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
        let status = Command::new("python3")
            .args(["-c", check])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    })
}

fn make() -> Result<PathBuf, Error> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python");
    let mut hasher = DefaultHasher::new();
    hash_tree(&package, &["py", "pyi", "toml", "txt", "md"], &mut hasher)?;
    let cache = target()?.join("python");
    let venv = cache.join(format!("{:016x}", hasher.finish()));
    let python = venv.join("bin/python");
    let done = venv.join("done");
    fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("lock"))?;
    lock.lock()?;
    if done.exists() {
        return Ok(python);
    }
    for old in fs::read_dir(&cache)?
        .flatten()
        .filter(|entry| entry.path().is_dir())
    {
        fs::remove_dir_all(old.path())?;
    }
    let started = Instant::now();
    say("installing clients/python ...");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet"])
        .arg("--disable-pip-version-check")
        .arg(&package)
        // What the package is built with is held to the same versions as what it needs.
        .env("PIP_CONSTRAINT", package.join("constraints.txt"));
    run(&mut pip)?;
    File::create(&done)?;
    let took = started.elapsed().as_secs();
    say(&format!("installed clients/python in {took} s"));
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), Error> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {why}").into())
}
