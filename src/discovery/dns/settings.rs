//! `/etc/resolv.conf`: whom to ask, for how long, and for which names.

use std::{
    fs::File,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Where the system's settings are.
const PATH: &str = "/etc/resolv.conf";
/// More of the file is not read.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// As many as other resolvers ask.
const SERVERS_MAX: usize = 3;
/// As many domains as other resolvers try.
const SEARCH_MAX: usize = 6;
const PORT: u16 = 53;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const TIMEOUT_SECONDS_MAX: u64 = 30;
const ATTEMPTS_DEFAULT: usize = 2;
const ATTEMPTS_MAX: usize = 5;
const NDOTS_MAX: usize = 15;

/// How name servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The servers, in the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// Domains that a name may be meant in.
    pub search: Vec<String>,
    /// Names with fewer dots are looked for in those domains first.
    pub ndots: usize,
    /// Time for one answer.
    pub timeout: Duration,
    /// How often each server is asked.
    pub attempts: usize,
    /// Whether UDP is left out.
    pub use_tcp: bool,
}

impl Settings {
    /// Asks these servers, and no other domains.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers,
            search: Vec::new(),
            ndots: 1,
            timeout: TIMEOUT_DEFAULT,
            attempts: ATTEMPTS_DEFAULT,
            use_tcp: false,
        }
    }

    /// The system's; without a file, its own host is asked, as by other resolvers.
    pub fn of_system() -> Self {
        let mut text = Vec::new();
        // A file that cannot be read is like one that is not there.
        drop(File::open(PATH).map(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text)));
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// Reads the text of such a file; what makes no sense is passed over, as by other resolvers.
    pub fn parse(text: &str) -> Self {
        let mut settings = Self::new(Vec::new());
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => settings.servers.extend(words.next().and_then(server)),
                Some("domain" | "search") => settings.search = words.map(domain).take(SEARCH_MAX).collect(),
                Some("options") => words.for_each(|word| settings.set(word)),
                _ => {}
            }
        }
        settings.servers.truncate(SERVERS_MAX);
        if settings.servers.is_empty() {
            settings.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        settings
    }

    fn set(&mut self, word: &str) {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        let number = value.parse::<usize>().ok();
        match (name, number) {
            ("ndots", Some(ndots)) => self.ndots = ndots.min(NDOTS_MAX),
            ("attempts", Some(attempts)) => self.attempts = attempts.clamp(1, ATTEMPTS_MAX),
            ("timeout", Some(_)) => {
                let seconds = value.parse().unwrap_or(TIMEOUT_SECONDS_MAX);
                self.timeout = Duration::from_secs(seconds.clamp(1, TIMEOUT_SECONDS_MAX));
            }
            ("use-vc" | "usevc" | "tcp", _) => self.use_tcp = true,
            _ => {}
        }
    }

    /// The names that `name` may mean, the likeliest first.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut searched: Vec<String> = self.search.iter().map(|domain| format!("{name}.{domain}.")).collect();
        let own = format!("{name}.");
        let at = if name.matches('.').count() >= self.ndots { 0 } else { searched.len() };
        searched.insert(at, own);
        searched
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    let ip: IpAddr = text.split('%').next()?.parse().ok()?;
    Some((ip, PORT).into())
}

fn domain(text: &str) -> String {
    text.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_read_as_other_resolvers_read_it() {
        let text = "# no\nnameserver 10.0.0.2\nnameserver nonsense\nnameserver ::1\nsearch a.example. b.example\n\
                    options ndots:2 timeout:900 attempts:0 use-vc rotate\n";
        let settings = Settings::parse(text);
        assert_eq!(settings.servers, ["10.0.0.2:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(settings.search, ["a.example", "b.example"]);
        assert_eq!((settings.ndots, settings.timeout, settings.attempts), (2, Duration::from_secs(30), 1));
        assert!(settings.use_tcp);
        assert_eq!(Settings::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn names_with_dots_are_looked_for_as_they_are_first() {
        let settings = Settings::parse("search a.example\noptions ndots:2\n");
        assert_eq!(settings.candidates("x.y.z"), ["x.y.z.", "x.y.z.a.example."]);
        assert_eq!(settings.candidates("x"), ["x.a.example.", "x."]);
        assert_eq!(settings.candidates("x."), ["x."]);
    }
}
