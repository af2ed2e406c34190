//! A bar that grows, for people who watch.

use std::{
    io::{self, IsTerminal as _},
    pin::pin,
    time::Duration,
};

use tokio::time::timeout;

use super::super::super::speak::complain_on_same_line;

/// Progress on standard error; nothing at all unless that is a terminal.
pub(super) struct Bar {
    total: u64,
    is_shown: bool,
}

impl Bar {
    /// Begins at nothing of `total`.
    pub(super) fn begin(total: u64) -> Self {
        Self { total, is_shown: io::stderr().is_terminal() }
    }

    /// Shows how far `work` is, again and again until it is done.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>, so_far: impl Fn() -> u64) -> T {
        let mut work = pin!(work);
        let done = loop {
            self.show(so_far());
            if let Ok(done) = timeout(INTERVAL, &mut work).await {
                break done;
            }
        };
        self.end();
        done
    }

    /// The whole bar.
    fn end(&self) {
        self.show(self.total);
        if self.is_shown {
            complain_on_same_line("\n");
        }
    }

    fn show(&self, so_far: u64) {
        if self.is_shown {
            complain_on_same_line(format_args!("\r{}", text(so_far, self.total)));
        }
    }
}

fn text(so_far: u64, total: u64) -> String {
    let so_far = so_far.min(total);
    let of = |whole: u64| usize::try_from(so_far.saturating_mul(whole) / total.max(1)).unwrap_or(0);
    let filled = of(WIDTH);
    let rest = usize::try_from(WIDTH).unwrap_or(0) - filled;
    format!("{so_far} / {total} [{}{}] {}%", "-".repeat(filled), "_".repeat(rest), of(100))
}

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Signs between the brackets.
const WIDTH: u64 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_grows_to_its_end_and_not_beyond() {
        assert_eq!(text(0, 60), format!("0 / 60 [{}] 0%", "_".repeat(50)));
        assert_eq!(text(30, 60), format!("30 / 60 [{}{}] 50%", "-".repeat(25), "_".repeat(25)));
        assert_eq!(text(70, 60), format!("60 / 60 [{}] 100%", "-".repeat(50)));
    }
}
