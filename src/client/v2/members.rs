//! Members of the cluster.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Answer, Cluster, V2Error, action::Action, json};
use crate::config::Url;

/// A member, as the v2 API tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Member {
    /// In hexadecimal.
    pub id: String,
    /// Empty before its first start.
    pub name: String,
    /// Where it listens for its peers.
    #[serde(rename = "peerURLs", deserialize_with = "texts")]
    pub peer_urls: Vec<String>,
    /// Where it listens for clients, as it announces it.
    #[serde(rename = "clientURLs", deserialize_with = "texts")]
    pub client_urls: Vec<String>,
}

/// A list, which may be missing by being `null`.
fn texts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Members {
    members: Option<Vec<Member>>,
}

impl Cluster {
    /// Lists the members.
    ///
    /// # Errors
    /// Why nobody answered, or that the answer is no list of members.
    pub async fn members(&mut self) -> Result<Vec<Member>, V2Error> {
        let answer = self.perform(&Action::get(MEMBERS)).await?;
        expect(&answer, &[StatusCode::OK])?;
        Ok(json::read::<Members>(&answer.body)?.members.unwrap_or_default())
    }

    /// The member that leads.
    ///
    /// # Errors
    /// As [`members`](Self::members).
    pub async fn leader(&mut self) -> Result<Member, V2Error> {
        let answer = self.perform(&Action::get(format!("{MEMBERS}/leader"))).await?;
        expect(&answer, &[StatusCode::OK])?;
        json::read(&answer.body)
    }

    /// Makes room for a member that will listen at `peer_url`.
    ///
    /// # Errors
    /// [`V2Error::BadUrl`], what the cluster answered, or why nobody did.
    pub async fn add_member(&mut self, peer_url: &str) -> Result<Member, V2Error> {
        let action = Action::new(Method::POST, MEMBERS).json(peer_urls([peer_url])?);
        let answer = self.perform(&action).await?;
        expect(&answer, &[StatusCode::CREATED, StatusCode::CONFLICT])?;
        if answer.status == StatusCode::CREATED { json::read(&answer.body) } else { Err(json::refusal(&answer.body)?) }
    }

    /// Changes where a member listens for its peers.
    ///
    /// # Errors
    /// As [`add_member`](Self::add_member).
    pub async fn update_member(&mut self, id: &str, urls: &[&str]) -> Result<(), V2Error> {
        let body = peer_urls(urls.iter().copied())?;
        let answer = self.perform(&Action::new(Method::PUT, below(id)).json(body)).await?;
        expect(&answer, &[StatusCode::NO_CONTENT, StatusCode::NOT_FOUND, StatusCode::CONFLICT])?;
        if answer.status == StatusCode::NO_CONTENT { Ok(()) } else { Err(json::refusal(&answer.body)?) }
    }

    /// Takes a member out of the cluster. One that is out already is no failure.
    ///
    /// # Errors
    /// What the cluster answered, or why nobody did.
    pub async fn remove_member(&mut self, id: &str) -> Result<(), V2Error> {
        let answer = self.perform(&Action::new(Method::DELETE, below(id))).await?;
        expect(&answer, &[StatusCode::NO_CONTENT, StatusCode::GONE])
    }
}

const MEMBERS: &str = "/v2/members";

fn below(id: &str) -> String {
    format!("{MEMBERS}/{}", id.trim_end_matches('/'))
}

fn expect(answer: &Answer, expected: &[StatusCode]) -> Result<(), V2Error> {
    if expected.contains(&answer.status) { Ok(()) } else { Err(V2Error::Status(answer.status.as_u16())) }
}

fn peer_urls<'t>(urls: impl IntoIterator<Item = &'t str>) -> Result<Vec<u8>, V2Error> {
    let urls = Url::sorted(urls).map_err(V2Error::BadUrl)?;
    let texts: Vec<_> = urls.iter().map(Url::as_str).collect();
    Ok(serde_json::json!({ "peerURLs": texts }).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_before_their_start_have_no_names() {
        let body = br#"{"members":[{"id":"1f","name":"","peerURLs":["http://a:1"],"clientURLs":null}]}"#;
        let members = json::read::<Members>(body).unwrap().members.unwrap();
        let member = Member { id: "1f".into(), peer_urls: vec!["http://a:1".into()], ..Member::default() };
        assert_eq!(members, [member]);
    }

    #[test]
    fn peer_urls_are_checked_before_they_are_sent() {
        assert_eq!(peer_urls(["http://b:1", "http://a:1"]).unwrap(), br#"{"peerURLs":["http://a:1","http://b:1"]}"#);
        let refused = peer_urls(["foo"]).unwrap_err().to_string();
        assert_eq!(refused, "URL scheme must be http, https, unix, or unixs: foo");
    }
}
