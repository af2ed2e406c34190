//! The page for people: one HTML file with all it needs inside, readable without JavaScript, live with it.
//!
//! It shows one token to whoever has it, and never a list of tokens. Everything that members wrote is escaped; the content
//! security policy lets the browser run nothing but the script that stands in the file.

use std::{fmt::Write as _, sync::LazyLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use super::registry::{Registered, Roster};

const FRAME: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// What reloads the page where there is no JavaScript.
const REFRESH: &str = "<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>";

/// The content security policy of the page: nothing from anywhere, but what is inside by its hash.
pub(super) fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        )
    });
    &POLICY
}

fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}

/// What the page is about.
pub(super) enum Subject<'a> {
    /// Nothing yet.
    Start,
    /// Somebody asked for what is no token, or is not there any more.
    Unknown {
        /// What was typed.
        asked: &'a str,
    },
    /// Something went wrong; in one sentence.
    Trouble {
        /// What, and what to do.
        what: &'a str,
    },
    /// A token.
    Token {
        /// Its URL.
        url: &'a str,
        /// Its state.
        roster: &'a Roster,
        /// The time, since the Unix epoch.
        now: Duration,
    },
}

/// The page; `size_max` is what the form allows.
pub(super) fn page(subject: &Subject<'_>, size_max: u32) -> String {
    let (title, main) = match subject {
        Subject::Start => ("Cluster discovery".to_owned(), start(size_max)),
        Subject::Unknown { asked } => ("Unknown token".to_owned(), unknown(asked) + &start(size_max)),
        Subject::Trouble { what } => ("Cluster discovery".to_owned(), trouble(what) + &start(size_max)),
        Subject::Token { url, roster, now } => (title(roster), token(url, roster, *now)),
    };
    let refresh = if matches!(subject, Subject::Token { .. }) { REFRESH } else { "" };
    let parts =
        [("title", title.as_str()), ("refresh", refresh), ("style", STYLE), ("script", SCRIPT), ("main", &main)];
    let mut page = String::with_capacity(FRAME.len() + STYLE.len() + SCRIPT.len() + main.len());
    let mut rest = FRAME;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (name, after) = behind.split_once("}}").unwrap_or((behind, ""));
        page.push_str(before);
        page.push_str(parts.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text));
        rest = after;
    }
    page + rest
}

/// Registered members count as far as the cluster has places.
fn standing(roster: &Roster) -> (u32, u32) {
    let size = roster.size.unwrap_or(0);
    (u32::try_from(roster.members.len()).unwrap_or(u32::MAX).min(size), size)
}

fn title(roster: &Roster) -> String {
    let (there, size) = standing(roster);
    format!("{there} of {size} members")
}

fn start(size_max: u32) -> String {
    format!(
        "<form method=\"post\" action=\"/\"><h2>Begin a new cluster</h2>\
         <p>A token names a cluster that is to be. Its members find each other by it.</p>\
         <label for=\"size\">How many members is it to have?</label>\
         <input id=\"size\" name=\"size\" type=\"number\" min=\"1\" max=\"{size_max}\" value=\"3\" required> \
         <button>Make a token</button></form>\
         <form method=\"get\" action=\"/\"><h2>See how a cluster comes together</h2>\
         <label for=\"token\">Its token, or the whole URL</label>\
         <input id=\"token\" name=\"token\" type=\"text\" size=\"36\" autocomplete=\"off\" spellcheck=\"false\" required> \
         <button>Show</button></form>"
    )
}

fn unknown(asked: &str) -> String {
    const SHOWN_CHARS: usize = 64;
    let asked: String = asked.chars().take(SHOWN_CHARS).collect();
    format!(
        "<section id=\"state\" class=\"problem\" role=\"status\" data-live><p class=\"state\">There is no such token</p>\
         <p><span class=\"token\">{}</span> was mistyped, or it has expired because nobody registered for a long time. \
         A cluster that has formed needs its token no more.</p></section>",
        escaped(&asked)
    )
}

fn trouble(what: &str) -> String {
    format!(
        "<section class=\"problem\" role=\"alert\"><p class=\"state\">That did not work</p><p>{}</p></section>",
        escaped(what)
    )
}

fn token(url: &str, roster: &Roster, now: Duration) -> String {
    let (there, size) = standing(roster);
    let missing = size.saturating_sub(there);
    let (class, state) = match (size, missing) {
        (0, _) => ("problem", "The size of the cluster is not a number".to_owned()),
        (1, 0) => ("complete", "The only member has registered".to_owned()),
        (_, 0) => ("complete", format!("All {size} members have registered")),
        (_, 1) => ("waiting", format!("{there} of {size} members have registered, 1 is missing")),
        _ => ("waiting", format!("{there} of {size} members have registered, {missing} are missing")),
    };
    let lifetime = roster.expires_in.map_or_else(
        || "This token stays until somebody removes it.".to_owned(),
        |left| format!("This token goes in {} unless somebody registers.", long(left)),
    );
    format!(
        "<section id=\"state\" class=\"{class}\" role=\"status\" data-live><p class=\"state\">{state}</p>\
         <p>Token URL: <code>{url}</code></p>\
         <p class=\"soft\">{lifetime} <span id=\"note\"></span></p></section>\
         <section id=\"members\" data-live><h2>Members</h2>{}</section>\
         <section id=\"next\" data-live><h2>On the next host</h2>{}</section>",
        table(roster, size, now),
        next(url, missing),
        url = escaped(url)
    )
}

fn table(roster: &Roster, size: u32, now: Duration) -> String {
    let mut rows = String::new();
    let places = usize::try_from(size).unwrap_or(usize::MAX);
    for (place, member) in roster.members.iter().enumerate() {
        rows.push_str(&row(place + 1, member, place < places, now));
    }
    for place in roster.members.len()..places {
        let number = place + 1;
        push(&mut rows, format_args!("<tr><td>{number}</td><td class=\"missing\" colspan=\"4\">missing</td></tr>"));
    }
    format!(
        "<div class=\"table\"><table><thead><tr><th scope=\"col\">#</th><th scope=\"col\">Name</th>\
         <th scope=\"col\">Peer URLs</th><th scope=\"col\">Identifier</th><th scope=\"col\">Registered</th></tr></thead>\
         <tbody>{rows}</tbody></table></div>"
    )
}

fn row(number: usize, member: &Registered, has_place: bool, now: Duration) -> String {
    let pairs: Vec<(&str, &str)> =
        member.value.split(',').map(|pair| pair.split_once('=').unwrap_or(("", pair))).collect();
    let name = pairs.first().map_or("", |(name, _)| name);
    let urls: Vec<String> = pairs.iter().map(|(_, url)| escaped(url)).collect();
    let age = match member.since {
        Some(since) => format!("{} ago", long(now.saturating_sub(since))),
        None => "the store does not tell when".to_owned(),
    };
    let place = if has_place { "" } else { "; no place left: it becomes a proxy, or ends" };
    format!(
        "<tr><td>{number}</td><td>{}</td><td><code>{}</code></td><td><code>{}</code></td><td>{age}{place}</td></tr>",
        escaped(name),
        urls.join("<br>"),
        escaped(&member.name)
    )
}

/// What to type for the next member; nothing once there are all.
fn next(url: &str, missing: u32) -> String {
    if missing == 0 {
        return "<p>No place is left. A further node with this token becomes a proxy of the cluster, or ends, as its \
                <code>--discovery-fallback</code> says.</p>"
            .to_owned();
    }
    let url = escaped(url);
    format!(
        "<p>Put its own name and address in place of <code>NAME</code> and <code>ADDRESS</code>:</p>\
         <pre>quorate --name NAME --data-dir /var/lib/quorate \\\n\
         \x20 --listen-peer-urls http://ADDRESS:2380 \\\n\
         \x20 --initial-advertise-peer-urls http://ADDRESS:2380 \\\n\
         \x20 --listen-client-urls http://ADDRESS:2379,http://127.0.0.1:2379 \\\n\
         \x20 --advertise-client-urls http://ADDRESS:2379 \\\n\
         \x20 --discovery {url}</pre>\
         <p>As a service, the same in its environment file, and this line:</p>\
         <pre>ETCD_DISCOVERY={url}</pre>\
         <p class=\"soft\">etcd up to 3.6 takes the same options. Start the members close together: each waits until all are \
         there.</p>"
    )
}

/// A time as people say it, in its largest unit.
fn long(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", (seconds + 43_200) / 86_400),
    }
}

/// Text as HTML shows it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

/// A `String` takes any text.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(value: &str) -> Registered {
        Registered { name: "a1".into(), value: value.into(), since: Some(Duration::from_secs(100)) }
    }

    fn shown(size: u32, values: &[&str]) -> String {
        let members = values.iter().map(|value| member(value)).collect();
        let roster = Roster { size: Some(size), members, expires_in: Some(Duration::from_hours(168)) };
        let subject = Subject::Token { url: "http://d:1/abc", roster: &roster, now: Duration::from_secs(130) };
        page(&subject, 64)
    }

    #[test]
    fn the_page_says_who_is_there_and_how_many_are_missing() {
        let page = shown(3, &["m1=http://10.0.0.1:2380,m1=http://10.0.0.2:2380"]);
        assert!(page.contains("1 of 3 members have registered, 2 are missing"), "{page}");
        assert!(page.contains("http://10.0.0.1:2380<br>http://10.0.0.2:2380"), "{page}");
        assert!(page.contains("<td>30 s ago</td>") && page.contains("in 7 days"), "{page}");
        assert_eq!(page.matches(">missing<").count(), 2);
        assert!(shown(1, &["m1=http://a:1"]).contains("The only member has registered"));
        assert!(shown(2, &["m1=http://a:1", "m2=http://b:1"]).contains("All 2 members have registered"));
        assert!(shown(1, &["m1=http://a:1", "m2=http://b:1"]).contains("no place left"));
        assert!(
            page.contains("--discovery http://d:1/abc") && shown(1, &["m=http://a:1"]).contains("No place is left")
        );
    }

    #[test]
    fn what_members_write_cannot_become_part_of_the_page() {
        let page = shown(3, &["<script>alert(1)</script>=http://a\"'&\u{0}:1", "{{script}}={{style}}"]);
        assert!(!page.contains("<script>alert") && page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
        assert_eq!(page.matches("<script>").count(), 1);
        assert!(page.contains("{{script}}"), "no second pass over what was put in");
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        for page in [page(&Subject::Start, 64), page(&Subject::Unknown { asked: "x" }, 64), shown(3, &["m=http://a:1"])]
        {
            for attribute in ["src=", "href=", "action=", "url("] {
                for (_, behind) in page.match_indices(attribute).map(|(at, _)| page.split_at(at + attribute.len())) {
                    let value = behind.trim_start_matches('"');
                    assert!(
                        value.starts_with('/') && !value.starts_with("//") || value.starts_with("data:,"),
                        "{value:.60}"
                    );
                }
            }
            assert!(!page.contains("@import") && !page.contains("{{"), "{page}");
        }
    }

    #[test]
    fn the_policy_allows_what_is_inside() {
        let page = page(&Subject::Start, 64);
        let inside = |tag: &str| {
            page.split_once(&format!("<{tag}>")).unwrap().1.split_once(&format!("</{tag}>")).unwrap().0.to_owned()
        };
        for tag in ["style", "script"] {
            assert!(policy().contains(&hash(&inside(tag))), "{tag}");
        }
    }
}
