//! The manual pages, read from the option table, the command tables and the table of metrics; what no table says is prose
//! of ours (`prose`).
//!
//! `tests/manuals.rs` compares the committed pages under `man/` with these, and `make man` writes them anew.

mod commands;
mod metrics;
mod options;
mod prose;
mod roff;

use roff::Roff;

/// One page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Its file, `NAME.SECTION`.
    pub file: &'static str,
    write: fn() -> Roff,
}

impl Page {
    /// The page as roff with the macros of man(7).
    pub fn text(&self) -> String {
        (self.write)().into_text()
    }
}

/// Every page there is.
pub const PAGES: [Page; 7] = [
    Page { file: "quorate.8", write: options::daemon },
    Page { file: "quorate-metrics.8", write: metrics::page },
    Page { file: "quorate-discovery.8", write: commands::discovery },
    Page { file: "quorate.toml.5", write: options::toml_file },
    Page { file: "quorate.env.5", write: options::env_file },
    Page { file: "quoratectl.1", write: commands::client },
    Page { file: "quorateutl.1", write: commands::offline_tool },
];
