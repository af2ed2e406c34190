//! What simulators of machines share: disks that lose power, a process made of the real parts, and the state that a log
//! must lead to. Threads and their order are the simulator's own.

#![allow(dead_code, unreachable_pub, reason = "each simulator includes this module and uses its own part of it")]

pub mod disk;
pub mod model;
pub mod process;

use std::collections::BTreeMap;
use std::error::Error;

/// A broken promise, in words.
pub type Wrong = String;

/// What happened how often.
pub type Tally = BTreeMap<&'static str, u64>;

/// Why a step was not carried out.
#[derive(Debug)]
pub enum Stop {
    /// The power is gone.
    Down(String),
    /// The member ends by itself, as it should.
    Ended(&'static str),
    /// A promise is broken.
    Wrong(Wrong),
}

impl From<Wrong> for Stop {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

/// Only a failure made to order excuses an error.
pub fn excused(error: &(dyn Error + 'static)) -> Stop {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    if text.contains("injected failure") { Stop::Down(text) } else { Stop::Wrong(format!("refused: {text}")) }
}
