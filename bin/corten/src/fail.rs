//! How a command ends badly: text for stderr, a hint, and an exit code.

use api_client::Error;

#[derive(Debug)]
pub struct Fail {
    /// Printed on stderr; nothing if empty.
    pub text: String,
    pub hint: Option<String>,
    pub code: i32,
    /// The daemon's status, where it gave one.
    pub status: Option<u16>,
}

impl Fail {
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None, code: 1, status: None }
    }

    /// Ends with a code and says nothing.
    pub fn quiet(code: i32) -> Self {
        Self { text: String::new(), hint: None, code, status: None }
    }

    pub fn code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// The layout of `run` and `create`: the program in front, a pointer to the help behind.
    pub fn with_help(mut self, program: &str, path: &str) -> Self {
        if !self.text.is_empty() {
            self.text =
                format!("{program}: {}\n\nRun '{program} {path} --help' for more information", self.text);
        }
        self
    }

    pub fn print(&self, program: &str) {
        if !self.text.is_empty() {
            eprintln!("{}", self.text);
        }
        if let (Some(hint), "corten") = (&self.hint, program) {
            eprintln!("hint: {hint}");
        }
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        let status = error.status();
        let text = error.to_string();
        let hint = match error {
            Error::Api { hint, .. } => hint,
            _ => None,
        };
        Self { text, hint, code: 1, status }
    }
}

impl From<String> for Fail {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<std::io::Error> for Fail {
    fn from(error: std::io::Error) -> Self {
        Self::text(crate::opts::kv::describe(&error))
    }
}

impl From<template::Error> for Fail {
    fn from(error: template::Error) -> Self {
        Self::text(format!("template parsing error: {error}"))
    }
}
