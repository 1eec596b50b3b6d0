//! The `informerd` program: reads the command line, runs what it says, and turns the outcome into an exit code.
//! 0 done, 1 failed, 2 wrong usage or configuration; what `wait` and `audit` say by it stands with them.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use informerd::{
    app,
    args::{CertsCommand, Cli, Command, ConfigCommand, DevArgs},
    audit,
    cli::{self, Output},
    config,
    tls::{self, DevCertificates},
};

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, ExitCode::FAILURE),
    };
    match command {
        Command::Serve(args) => match runtime.block_on(app::serve(args)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, error.exit_code()),
        },
        #[cfg(feature = "sandbox")]
        Command::Demo(args) => match runtime.block_on(app::demo(args)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, error.exit_code()),
        },
        #[cfg(feature = "sandbox")]
        Command::Sandbox(args) => match runtime.block_on(app::sandbox(args)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, error.exit_code()),
        },
        Command::Config(ConfigCommand::Check(args)) => {
            match config::check(&args.file, &app::reads()) {
                // A reader that went away has seen enough.
                Ok(summary) => {
                    let _ = io::stdout().write_all(summary.as_bytes());
                    ExitCode::SUCCESS
                }
                Err(error) => fail(&error, ExitCode::from(2)),
            }
        }
        Command::Certs(CertsCommand::Dev(args)) => make_certificates(args),
        Command::Audit(args) => {
            let audited = printing(|output| runtime.block_on(audit::run(args, output)));
            audited.map_or_else(|error| fail(&error, ExitCode::from(2)), ExitCode::from)
        }
        Command::Read(command) => {
            match printing(|output| runtime.block_on(cli::run(command, output))) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error, error.exit_code()),
            }
        }
    }
}

fn make_certificates(args: DevArgs) -> ExitCode {
    let asked = DevCertificates {
        folder: args.folder,
        hosts: args.hosts,
        user: args.user,
        group: args.group,
    };
    match tls::write_dev_certificates(&asked) {
        Ok(files) => {
            for file in files {
                println!("{}", file.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, ExitCode::FAILURE),
    }
}

/// To the terminal.
fn printing<T>(print: impl FnOnce(&mut Output<'_>) -> T) -> T {
    let mut stdout = io::BufWriter::new(io::stdout());
    print(&mut Output {
        out: &mut stdout,
        err: &mut io::stderr(),
        now: jiff::Timestamp::now,
    })
}

fn fail(error: &dyn std::error::Error, code: ExitCode) -> ExitCode {
    eprintln!("error: {error}");
    code
}
