//! The manual pages: what is committed is what the tables say, and whoever renders it has nothing to complain of.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use quorate::cli::manual::PAGES;

/// Columns of the terminals that the pages are rendered for; Debian's lintian uses the widest.
const WIDTHS: [&str; 4] = ["60", "80", "100", "120"];

fn path_of(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(file)
}

/// `WRITE_MANUALS=1`, which `make man` sets, writes the pages first.
#[test]
fn committed_pages_are_those_of_the_tables() {
    for page in PAGES {
        let path = path_of(page.file);
        if support::setting("WRITE_MANUALS", 0) > 0 {
            fs::write(&path, page.text()).expect("the page can be written");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == page.text(), "man/{} is not what the tables say: run make man", page.file);
    }
    let files = fs::read_dir(path_of("")).expect("a directory").count();
    assert_eq!(files, PAGES.len(), "a page that nobody writes");
}

#[test]
fn pages_render_without_warnings() {
    let renderers: [(&str, &[&str]); 2] =
        [("man", &["--warnings", "--encoding=UTF-8", "--local-file"]), ("mandoc", &["-T", "lint", "-W", "warning"])];
    for page in PAGES {
        for (program, words) in renderers {
            for width in WIDTHS {
                let output = Command::new(program).args(words).arg(path_of(page.file)).env("MANWIDTH", width).output();
                let output = output
                    .unwrap_or_else(|error| panic!("{program}: {error}; apt-get install man-db mandoc brings it"));
                let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                let complaints = if program == "mandoc" { shown.as_ref() } else { "" };
                assert!(
                    output.status.success() && said.is_empty() && complaints.is_empty(),
                    "{} at {width} columns: {said}{complaints}",
                    page.file
                );
                if program == "man" {
                    assert!(shown.contains("NAME") && shown.contains("SEE ALSO"), "{}: {shown}", page.file);
                }
            }
        }
    }
}
