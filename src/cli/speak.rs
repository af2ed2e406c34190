//! Words for people, on the two streams, without dying of a reader that went away.

use std::{
    fmt,
    io::{self, Write},
};

/// Writes to standard output.
///
/// # Errors
/// Standard output is gone.
pub(super) fn say(text: fmt::Arguments) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_fmt(text)?;
    out.flush()
}

/// Writes one line to standard error. There is nowhere left to report a failure to.
pub(super) fn complain(text: impl fmt::Display) {
    writeln!(io::stderr(), "{text}").unwrap_or_default();
}

/// Writes to standard error without ending the line.
pub(super) fn complain_on_same_line(text: impl fmt::Display) {
    write!(io::stderr(), "{text}").unwrap_or_default();
}
