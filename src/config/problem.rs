//! Where something in the configuration stands, and what is wrong with it.

use std::{fmt, path::PathBuf, sync::Arc};

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A position in the file; both count from 1.
    At {
        /// As given to `--config`.
        file: Arc<str>,
        /// Line.
        line: u64,
        /// Column, in characters.
        column: u64,
    },
    /// A flag, as it would be typed: `--kind pods`.
    Flag(String),
    /// Nowhere: nobody wrote it.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Default => f.write_str("configuration"),
        }
    }
}

/// One thing that is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// The setting, `kinds[2].pageSize`; empty where the place says it all.
    pub setting: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.setting.is_empty() {
            write!(f, "{}: ", self.setting)?;
        }
        f.write_str(&self.message)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {message}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        message: String,
    },
    /// Everything that is wrong, in the order of the file; at least one, each on a line of its own.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

/// Turns problems into an error, if there are any; in the order of the file.
pub(super) fn refuse_if_any(mut problems: Vec<Problem>) -> Result<(), ConfigError> {
    if problems.is_empty() {
        return Ok(());
    }
    problems.sort_by_key(|problem| match problem.place {
        Place::At { line, column, .. } => (0, line, column),
        Place::Flag(_) => (1, 0, 0),
        Place::Default => (2, 0, 0),
    });
    Err(ConfigError::Invalid(problems))
}
