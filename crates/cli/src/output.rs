//! Where answers and words go.

use std::io::{self, IsTerminal, Write};

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// It found a problem.
    Problem = 1,
    /// The call's words are off.
    Usage = 2,
    /// No server answers.
    Unreachable = 3,
}

/// Stdout for data, stderr for words.
pub struct Output {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    colour: bool,
}

impl Output {
    /// The process's own streams. Colour only on a terminal, and never where
    /// NO_COLOR is set (no-color.org).
    pub fn standard() -> Self {
        let colour = io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()), colour }
    }

    /// Other streams, without colour.
    pub fn to(out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        Self { out: Box::new(out), err: Box::new(err), colour: false }
    }

    /// One line of data.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Data as it is.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// One line of words. Words that cannot be written are not worth failing for.
    pub fn word(&mut self, text: &str) {
        writeln!(self.err, "{text}").ok();
    }

    /// A mark that carries its meaning by shape first: colour only repeats it.
    pub fn mark(&self, mark: Mark) -> String {
        let (shape, colour) = match mark {
            Mark::Fine => ("✓", "34"),
            Mark::Bad => ("✕", "33"),
            Mark::Beware => ("!", "33"),
            Mark::NotReached => ("–", "2"),
        };
        if self.colour { format!("\x1b[{colour}m{shape}\x1b[0m") } else { shape.to_owned() }
    }
}

/// What a line of an answer says at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it should be.
    Fine,
    /// Not as it should be.
    Bad,
    /// Works, and is worth a look.
    Beware,
    /// Nothing known.
    NotReached,
}
