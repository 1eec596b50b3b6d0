//! Logs, set up once at the start. They go to stderr, since stdout belongs to the commands' output.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    util::{SubscriberInitExt, TryInitError},
};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour on a terminal, unless NO_COLOR is set.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error(
        "log filter {filter:?}: {source}; write a level, as in \"info\", or levels by module, as in \
         \"warn,informerd=debug\" (levels: error, warn, info, debug, trace, off)"
    )]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Some other logger is in place.
    #[error("the log is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Sends the log to stderr from now on. `filter` is a level, or levels by module; where it names no level for a
/// module, `info` holds.
///
/// # Errors
///
/// The filter does not parse, or this was done before.
pub fn init(format: Format, filter: &str) -> Result<(), TelemetryError> {
    let filter = parse(filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        Format::Text => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            builder
                .with_ansi(io::stderr().is_terminal() && !plain)
                .finish()
                .try_init()?;
        }
        Format::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

/// What peers do wrong in HTTP/2 is no trouble of ours, and theirs to do as often as they like: of that nothing is
/// written that was not asked for.
const QUIET: &str = "h2=error";

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let refuse = |source| TelemetryError::Filter {
        filter: filter.to_owned(),
        source,
    };
    let parsed = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(filter)
        .map_err(refuse)?;
    if filter.split(',').any(|one| one.trim().starts_with("h2")) {
        return Ok(parsed);
    }
    Ok(parsed.add_directive(QUIET.parse().map_err(refuse)?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_filter_that_does_not_parse_is_named_with_what_to_write_instead() {
        let error = parse("informerd=loud").unwrap_err().to_string();
        assert!(error.contains(r#"log filter "informerd=loud""#), "{error}");
        assert!(error.contains("warn,informerd=debug"), "{error}");
    }

    #[test]
    fn levels_and_levels_by_module_are_filters_and_info_is_the_default() {
        for (filter, shown) in [
            ("", "info"),
            ("warn", "warn"),
            ("warn", "h2=error"),
            ("h2=debug,warn", "h2=debug"),
            ("informerd=debug,kube=off", "informerd=debug"),
        ] {
            let parsed = parse(filter).unwrap().to_string();
            assert!(parsed.contains(shown), "{filter:?} became {parsed:?}");
        }
    }
}
