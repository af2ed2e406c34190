//! `config convert`: what a configuration sets, in another form. Nothing is added, and nothing is left out unsaid.

use std::fmt::Display;

use super::{Answer, INVALID, VALID};
use crate::config::{
    Extras, Loaded, Loudness, Notice, Sources, load_with,
    show::{self, Format, Shown},
};

/// The configuration that `sources` have, in the form `to`; beside it what is to be known about it.
pub(super) fn convert(sources: &Sources, extras: Extras<'_>, to: Format, shown: Shown) -> Answer {
    let loaded = match load_with(sources, extras) {
        Ok(loaded) => loaded,
        Err(errors) => return Answer::refusal(lines("error", errors.problems()), errors.exit_code()),
    };
    match show::render(&loaded.settings, to, shown) {
        Ok(rendered) => {
            let notes = left_out(&loaded).into_iter().chain(rendered.remarks);
            let remarks = lines("note", notes);
            Answer { remarks, ..Answer::new(rendered.text, VALID) }
        }
        Err(lost) => Answer::refusal(lines("error", &lost), INVALID),
    }
}

/// What stands in the sources and means nothing.
fn left_out(loaded: &Loaded) -> Vec<String> {
    let is_no_option = |notice: &&Notice| notice.level == Loudness::Warn && notice.option.is_none();
    let strangers = loaded.notices.iter().filter(is_no_option).map(Notice::to_string);
    let idle = loaded.idle.iter().map(|(option, origin)| format!("{origin}: {option} is left out: it changes nothing"));
    strangers.chain(idle).collect()
}

/// One line each, in front of it how bad it is.
pub(super) fn lines<T: Display>(severity: &str, all: impl IntoIterator<Item = T>) -> String {
    let lines: Vec<String> = all.into_iter().map(|one| format!("{severity}: {one}\n")).collect();
    lines.concat()
}
