//! What can go wrong, in the words that Docker's users know.

use std::io;

/// Why a process could not be put into its sandbox. Every message stands alone: it contains its cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The program is not in the root filesystem (exit code 127 by convention).
    #[error("{0}")]
    ProgramNotFound(String),
    /// The program is there and cannot be executed (exit code 126 by convention).
    #[error("{0}")]
    ProgramNotExecutable(String),
    /// The spec asks for what cannot be: an unknown user, a missing mount source, a bad sysctl.
    #[error("{0}")]
    Invalid(String),
    /// The kernel or the filesystem refused a step.
    #[error("{step}: {}", describe(*errno))]
    System {
        /// What was being done, and to what.
        step: String,
        /// The error number, 0 if there is none.
        errno: i32,
    },
}

impl Error {
    pub(crate) fn system(step: impl Into<String>, error: impl Into<io::Error>) -> Error {
        Error::System { step: step.into(), errno: error.into().raw_os_error().unwrap_or(0) }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::Invalid(message.into())
    }
}

/// The text that C libraries have for an error number, in the lower case that Go programs print.
pub(crate) fn describe(errno: i32) -> String {
    if errno == 0 {
        return "failed".into();
    }
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => format!("errno {errno}"),
    }
}

/// Names the step that failed.
pub(crate) trait Step<T> {
    fn step(self, name: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, name: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::system(name(), error))
    }
}
