//! One question for SRV records, and what an answer to it says.

use domain::{
    base::{
        Message, MessageBuilder, Name, ToName as _,
        iana::{Class, Rcode, Rtype},
    },
    rdata,
};

use super::{Fault, Srv};

/// Most records a name may have: ten times what anybody runs.
const RECORDS_MAX: usize = 1000;
/// Longest host name in text.
const NAME_CHARS_MAX: usize = 255;
/// What this side reads over UDP: the size that passes everywhere.
const PAYLOAD_BYTES: u16 = 1232;

/// A question as it is sent.
#[derive(Debug)]
pub(super) struct Query {
    message: Message<Vec<u8>>,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The records.
    Records(Vec<Srv>),
    /// The answer did not fit.
    Cut,
    /// There are none, or nobody knows.
    Fault(Fault),
}

impl Query {
    /// Asks for the SRV records of `name`. `None` if that cannot be a name.
    pub(super) fn srv(name: &str, number: u16) -> Option<Self> {
        let name = Name::vec_from_str(name).ok()?;
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(number);
        builder.header_mut().set_rd(true);
        let mut question = builder.question();
        question.push((&name, Rtype::SRV, Class::IN)).ok()?;
        let mut additional = question.additional();
        let sized = additional.opt(|opt| {
            opt.set_udp_payload_size(PAYLOAD_BYTES);
            Ok(())
        });
        sized.ok()?;
        Some(Self { message: additional.into_message() })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.message.as_slice()
    }

    /// Reads an answer; `None` if it answers something else.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<Reply> {
        let message = Message::from_octets(bytes).ok()?;
        if !message.is_answer(&self.message) {
            return None;
        }
        Some(match message.header().rcode() {
            Rcode::NXDOMAIN => Reply::Fault(Fault::NoSuchHost),
            _ if message.header().tc() => Reply::Cut,
            Rcode::NOERROR => records(&message).map_or_else(Reply::Fault, Reply::Records),
            _ => Reply::Fault(Fault::Misbehaving),
        })
    }
}

/// The records of the name that was asked for, or of the one it is another name of.
fn records(message: &Message<&[u8]>) -> Result<Vec<Srv>, Fault> {
    let name = message.canonical_name().ok_or(Fault::Malformed("aliases without an end"))?;
    let answers = message.answer().map_err(|_| Fault::Malformed("records that cannot be read"))?;
    let mut records = Vec::new();
    for record in answers.limit_to_in::<rdata::Srv<_>>() {
        let record = record.map_err(|_| Fault::Malformed("records that cannot be read"))?;
        if !record.owner().name_eq(&name) {
            continue;
        }
        let data = record.data();
        let target = data.target().to_string().trim_end_matches('.').to_owned();
        let (priority, weight, port) = (data.priority(), data.weight(), data.port());
        // The root as target says that the service is not to be had there (RFC 2782).
        if !target.is_empty() {
            records.push(Srv { priority, weight, target, port });
        }
        if records.len() > RECORDS_MAX {
            return Err(Fault::Malformed("more records than a cluster has members"));
        }
    }
    match records {
        records if records.is_empty() => Err(Fault::NoSuchHost),
        records if records.iter().all(|record| is_host(&record.target)) => Ok(records),
        _ => Err(Fault::Malformed("records which contain invalid names")),
    }
}

/// Whether text from outside can stand in a URL.
fn is_host(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= NAME_CHARS_MAX && text.chars().all(plain)
}

#[cfg(test)]
pub(crate) mod tests {
    use domain::base::{Ttl, message_builder::AnswerBuilder};
    use proptest::prelude::*;

    use super::*;

    /// A record to answer with.
    #[derive(Clone, Debug)]
    pub(crate) enum Given {
        Srv(&'static str, u16, &'static str),
        Alias(&'static str, &'static str),
    }

    /// What a server would answer to `query`, with `change` made to the header.
    pub(crate) fn answer(query: &[u8], given: &[Given], change: impl FnOnce(&mut domain::base::Header)) -> Vec<u8> {
        let query = Message::from_octets(query).unwrap();
        let mut builder: AnswerBuilder<Vec<u8>> =
            MessageBuilder::new_vec().start_answer(&query, Rcode::NOERROR).unwrap();
        let name = |text: &str| Name::vec_from_str(text).unwrap();
        for one in given {
            match one {
                Given::Srv(owner, port, target) => {
                    let data = rdata::Srv::new(1, 2, *port, name(target));
                    builder.push((name(owner), Class::IN, Ttl::from_secs(60), data)).unwrap();
                }
                Given::Alias(owner, target) => {
                    let data = rdata::Cname::new(name(target));
                    builder.push((name(owner), Class::IN, Ttl::from_secs(60), data)).unwrap();
                }
            }
        }
        change(builder.header_mut());
        builder.finish()
    }

    const NAME: &str = "_etcd-server._tcp.example.com.";

    fn read(given: &[Given]) -> Reply {
        let query = Query::srv(NAME, 7).unwrap();
        query.read(&answer(query.bytes(), given, |_| {})).unwrap()
    }

    #[test]
    fn records_of_the_name_are_read_and_of_no_other() {
        let record = |target: &str| Srv { priority: 1, weight: 2, target: target.to_owned(), port: 2380 };
        let reply = read(&[Given::Srv(NAME, 2380, "a.example.com."), Given::Srv("evil.example.", 2380, "b.evil.")]);
        assert_eq!(reply, Reply::Records(vec![record("a.example.com")]));
        let other = "_etcd._tcp.example.net.";
        let reply = read(&[Given::Alias(NAME, other), Given::Srv(other, 2380, "a.example.net.")]);
        assert_eq!(reply, Reply::Records(vec![record("a.example.net")]));
    }

    #[test]
    fn nothing_is_no_such_host() {
        assert_eq!(read(&[]), Reply::Fault(Fault::NoSuchHost));
        assert_eq!(read(&[Given::Srv(NAME, 1, ".")]), Reply::Fault(Fault::NoSuchHost));
    }

    #[test]
    fn aliases_that_go_in_circles_end() {
        let reply = read(&[Given::Alias(NAME, "a.example."), Given::Alias("a.example.", NAME)]);
        assert_eq!(reply, Reply::Fault(Fault::Malformed("aliases without an end")));
    }

    #[test]
    fn names_that_are_no_hosts_are_refused() {
        let reply = read(&[Given::Srv(NAME, 1, "a\\,b\\=http.example.")]);
        assert_eq!(reply, Reply::Fault(Fault::Malformed("records which contain invalid names")));
    }

    #[test]
    fn answers_to_something_else_do_not_count() {
        let query = Query::srv(NAME, 7).unwrap();
        assert_eq!(query.read(&answer(query.bytes(), &[], |header| header.set_id(8))), None);
        assert_eq!(query.read(&answer(query.bytes(), &[], |header| header.set_qr(false))), None);
        let other = Query::srv("other.example.", 7).unwrap();
        assert_eq!(query.read(&answer(other.bytes(), &[], |_| {})), None);
        assert_eq!(query.read(b""), None);
    }

    #[test]
    fn servers_that_fail_or_cut_are_told_from_those_that_know() {
        let query = Query::srv(NAME, 7).unwrap();
        let with = |rcode| query.read(&answer(query.bytes(), &[], |header| header.set_rcode(rcode)));
        assert_eq!(with(Rcode::SERVFAIL), Some(Reply::Fault(Fault::Misbehaving)));
        assert_eq!(with(Rcode::REFUSED), Some(Reply::Fault(Fault::Misbehaving)));
        assert_eq!(with(Rcode::NXDOMAIN), Some(Reply::Fault(Fault::NoSuchHost)));
        assert_eq!(query.read(&answer(query.bytes(), &[], |header| header.set_tc(true))), Some(Reply::Cut));
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        assert!(Query::srv("a..b.", 1).is_none());
        assert!(Query::srv(&"a".repeat(64), 1).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_behind_the_question_are_read_without_panic(tail in prop::collection::vec(any::<u8>(), 0..200), counts in any::<[u8; 6]>()) {
            let query = Query::srv(NAME, 7).unwrap();
            let mut bytes = answer(query.bytes(), &[], |_| {});
            bytes[6..12].copy_from_slice(&counts);
            bytes.extend(tail);
            drop(query.read(&bytes));
        }
    }
}
