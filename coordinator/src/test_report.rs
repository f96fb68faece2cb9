//! What tests show beside passing: lines on standard output, seen with `--nocapture`. The cores do no
//! input and output, in tests neither, so this stands outside them.

use std::fmt::Display;

/// Shows a line.
pub(crate) fn line(text: impl Display) {
    println!("{text}");
}
