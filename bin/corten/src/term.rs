//! The terminal: size, raw mode, and what is one.

use std::os::fd::AsFd;

use crate::output::Which;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

pub fn stdin_is_terminal() -> bool {
    isatty(std::io::stdin())
}

/// Columns of the terminal that an output is; `None` if it is none.
pub fn columns_of(which: Which) -> Option<usize> {
    let size = match which {
        Which::Stdout => tcgetwinsize(std::io::stdout()),
        Which::Stderr => tcgetwinsize(std::io::stderr()),
    };
    size.ok().map(|size| usize::from(size.ws_col))
}

pub fn stdout_is_terminal() -> bool {
    isatty(std::io::stdout())
}

/// Rows and columns of the terminal on standard output.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0 || size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Columns of the terminal on standard input, as Docker measures for its help.
pub fn columns() -> Option<usize> {
    let size = tcgetwinsize(std::io::stdin()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// A terminal that gets its settings back when this is dropped.
#[derive(Debug)]
pub struct Raw {
    before: Option<Termios>,
}

impl Raw {
    /// Puts the terminal on standard input into raw mode: keys come as they are typed, signals included.
    pub fn stdin() -> std::io::Result<Self> {
        let stdin = std::io::stdin();
        if !isatty(&stdin) {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
        Ok(Self { before: Some(before) })
    }

    /// Gives the settings back now.
    pub fn restore(&mut self) {
        if let Some(before) = self.before.take() {
            // The terminal may be gone, and then needs no settings.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &before);
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.restore();
    }
}

/// A terminal that does not show what is typed, until this is dropped.
#[derive(Debug)]
pub struct Hidden(Termios);

impl Hidden {
    pub fn stdin() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(rustix::termios::LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // The terminal may be gone, and then needs no settings.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
