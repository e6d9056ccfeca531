//! Dockerfile text to instructions, and `.dockerignore` patterns.
//!
//! Pure: it reads text and makes values.
//!
//! 1. [`lines`](self) of the file are joined over continuations and freed of comments; heredocs are gathered.
//! 2. Each becomes an [`Instruction`]: flags checked, shell or JSON form decided, nothing expanded.
//! 3. Instructions fall into [`Stage`]s.
//! 4. Whoever builds expands variables with [`expand`], when it knows their values.
//!
//! Texts of errors are those that Docker's users know.

pub mod expand;
mod flags;
pub mod ignore;
mod instruction;
mod lines;
mod parse;
mod words;

pub use ignore::Ignore;
pub use instruction::{Add, Command, Copy, CopySource, Healthcheck, Heredoc, Instruction, Mount, Run};
pub use lines::Directives;
pub use parse::{Dockerfile, Stage, Step, parse, parse_trigger};

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("dockerfile parse error on line {line}: {what}")]
    Line { line: usize, what: String },
    #[error("{0}")]
    File(String),
}

#[cfg(test)]
mod tests;
