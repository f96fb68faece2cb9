//! How the program ends when it cannot go on: one error, its causes, and an exit code.

use std::fmt;
use std::io::Write;

/// Ends the program.
#[derive(Debug)]
pub enum Fatal {
    /// Flags that contradict each other or the model; exit code 2.
    Usage(anyhow::Error),
    /// The model is missing, damaged or not supported; exit code 5.
    Model(anyhow::Error),
    /// The model was written to while it was served, and is another one now; exit code 6.
    Changed(anyhow::Error),
    /// Anything else; exit code 1.
    Runtime(anyhow::Error),
}

impl Fatal {
    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Fatal::Usage(_) => 2,
            Fatal::Model(_) => 5,
            Fatal::Changed(_) => 6,
            Fatal::Runtime(_) => 1,
        }
    }

    /// A usage error from one sentence.
    pub fn usage(sentence: impl fmt::Display) -> Fatal {
        Fatal::Usage(anyhow::anyhow!("{sentence}"))
    }

    /// Writes `error: …` and one `caused by: …` line per cause to stderr.
    pub fn report(&self) {
        // A closed stderr is no reason to panic on the way out.
        let _ = write!(std::io::stderr().lock(), "{self}");
    }

    /// The error and its causes on one line, for a log.
    pub fn line(&self) -> String {
        one_line(&format!("{:#}", self.error()))
    }

    fn error(&self) -> &anyhow::Error {
        match self {
            Fatal::Usage(error)
            | Fatal::Model(error)
            | Fatal::Changed(error)
            | Fatal::Runtime(error) => error,
        }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.error().to_string();
        writeln!(f, "error: {}", one_line(&said))?;
        for cause in self.error().chain().skip(1) {
            let text = cause.to_string();
            // Many libraries repeat their source in their own sentence.
            if !said.contains(&text) {
                writeln!(f, "caused by: {}", one_line(&text))?;
                said = text;
            }
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Fatal {
    fn from(error: anyhow::Error) -> Fatal {
        Fatal::Runtime(error)
    }
}

/// Paths and peers may put line breaks and control characters into an error; one error is one line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_is_one_line_and_each_cause_another() {
        let cause = std::io::Error::other("disk\non fire");
        let error = Err::<(), _>(cause).context("cannot read a\tb").unwrap_err();
        let fatal = Fatal::Model(error);
        assert_eq!(
            fatal.to_string(),
            "error: cannot read a\u{fffd}b\ncaused by: disk\u{fffd}on fire\n"
        );
        assert_eq!(fatal.code(), 5);
    }

    #[test]
    fn a_cause_that_was_already_said_is_not_repeated() {
        let error = anyhow::anyhow!("no route").context("cannot dial: no route");
        assert_eq!(Fatal::Runtime(error).to_string(), "error: cannot dial: no route\n");
    }
}
