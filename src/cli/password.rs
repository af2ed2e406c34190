//! Secrets typed by people.

use std::io::{self, BufRead, IsTerminal};

use nix::sys::termios::{self, LocalFlags, SetArg};

use super::{failure::Failure, speak::say};

/// Asks for a secret on standard output and reads it from standard input, unseen on a terminal.
///
/// # Errors
/// A [`Failure`] if either of them is gone.
pub(super) fn ask(prompt: &str) -> Result<String, Failure> {
    say(format_args!("{prompt}"))?;
    let password = read_unseen()?;
    say(format_args!("\n"))?;
    Ok(password)
}

fn read_unseen() -> io::Result<String> {
    let stdin = io::stdin();
    let mut line = String::new();
    if !stdin.is_terminal() {
        stdin.lock().read_line(&mut line)?;
        return Ok(without_end(&line));
    }
    let shown = termios::tcgetattr(&stdin)?;
    let mut unseen = shown.clone();
    unseen.local_flags.remove(LocalFlags::ECHO);
    termios::tcsetattr(&stdin, SetArg::TCSAFLUSH, &unseen)?;
    let read = stdin.lock().read_line(&mut line);
    termios::tcsetattr(&stdin, SetArg::TCSAFLUSH, &shown)?;
    read.map(|_| without_end(&line))
}

fn without_end(line: &str) -> String {
    line.trim_end_matches(['\r', '\n']).to_owned()
}
