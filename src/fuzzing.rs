//! Everything that reads what somebody else wrote, as targets for a fuzzer.
//!
//! A target is a function of bytes that panics where something is wrong: not only where the parser does, but also
//! where what it gives contradicts itself. The unit tests drive each with its seeds and with random changes of them;
//! `fuzz/` is the crate by which cargo-fuzz does, guided by coverage and for as long as one likes.

mod callers;
mod connection;
mod grpc;
mod kubernetes;
mod objects;
#[cfg(test)]
mod tests;
mod words;

/// A parser, or a whole surface, under a fuzzer.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As in `fuzz/fuzz_targets` and `fuzz/seeds`.
    pub name: &'static str,
    /// Panics if something is wrong.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("certificate", callers::certificate),
    target("config", words::config),
    target("field_selector", words::field_selector),
    target("frames", connection::frames),
    target("grpc", grpc::call),
    target("impersonation", callers::impersonation),
    target("info_protocol", words::info_protocol),
    target("kubernetes", kubernetes::request),
    target("label_selector", words::label_selector),
    target("mask", objects::mask),
    target("object", objects::object),
    target("path", words::path),
    target("token", words::token),
    target("watch", objects::watch),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// Runs the target of this name.
///
/// # Panics
///
/// There is none, or it has found something.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("TARGETS has it");
    (target.run)(data);
}

/// Divides the input: a fuzzer's way to give several arguments.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n');
    at.map_or((data, &[]), |at| (&data[..at], &data[at + 1..]))
}
