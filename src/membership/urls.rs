//! The rules for peer URLs that a client may give.

use crate::types::Rejection;

/// Checks and sorts the peer URLs of a member to be added or updated.
///
/// The list must not be empty; `http` and `https` need `host:port` and no path, `unix` and `unixs` are taken as they
/// are (v3 semantics, §10). Spaces around a URL are dropped, as etcd does.
///
/// # Errors
/// [`Rejection::BadMemberUrls`].
pub fn check_peer_urls<S: AsRef<str>>(urls: &[S]) -> Result<Vec<String>, Rejection> {
    let mut checked = urls.iter().map(|url| check(url.as_ref().trim())).collect::<Option<Vec<_>>>();
    if let Some(list) = checked.as_mut() {
        list.sort_unstable();
    }
    checked.filter(|list| !list.is_empty()).ok_or(Rejection::BadMemberUrls)
}

fn check(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let fine = match scheme.as_str() {
        "http" | "https" => is_host_and_port(rest.split(['?', '#']).next()?),
        "unix" | "unixs" => !rest.is_empty(),
        _ => false,
    };
    let printable = !url.contains(|c: char| c.is_ascii_control() || c == ' ');
    (fine && printable).then(|| format!("{scheme}://{rest}"))
}

/// `host:port`, `[v6]:port`; the host may be empty, the port must be digits.
fn is_host_and_port(authority: &str) -> bool {
    let authority = authority.rsplit_once('@').map_or(authority, |(_user, rest)| rest);
    let Some((host, port)) = authority.rsplit_once(':') else { return false };
    let host_fine = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').is_some_and(|address| !address.contains(['[', ']'])),
        None => !host.contains([':', '[', ']']),
    };
    host_fine && !authority.contains('/') && port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_come_back_sorted_and_trimmed() {
        let urls = [" http://b:2380", "HTTPS://[::1]:1", "unix://sock:0"];
        assert_eq!(check_peer_urls(&urls).unwrap(), ["http://b:2380", "https://[::1]:1", "unix://sock:0"]);
    }

    #[test]
    fn malformed_urls_are_refused() {
        let bad = ["", "a:1", "ftp://a:1", "http://a", "http://a:1/", "http://a:1/path", "http://a:x", "http://::1:1"];
        for url in bad {
            assert_eq!(check_peer_urls(&[url]), Err(Rejection::BadMemberUrls), "{url}");
        }
        assert_eq!(check_peer_urls::<&str>(&[]), Err(Rejection::BadMemberUrls));
    }
}
