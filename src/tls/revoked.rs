//! Lists of revoked certificates, by etcd's rule: a certificate is revoked if its serial number stands in the list, whoever
//! has signed the certificate, whoever has signed the list, and whenever the next list was due.
//!
//! Lists are read whole or not at all: a list that is damaged anywhere would let somebody in.

use std::{collections::HashSet, path::Path, time::Duration};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject as _};
use x509_parser::{
    asn1_rs::{Any, FromDer as _, Tag},
    certificate::X509Certificate,
    time::ASN1Time,
};

use super::{
    TlsError,
    kept::{FileText, Material, contents},
};

/// Longest list that is read: some 400000 certificates.
const BYTES_MAX: u64 = 16 << 20;
/// With what a text in PEM is told from a list by itself.
const PEM_MARK: &[u8] = b"-----BEGIN";
/// The number of the second version of lists, which is the last.
const SECOND: &[u8] = &[1];

/// The serial numbers in a file of lists.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// Without leading zeros.
    serials: HashSet<Box<[u8]>>,
    /// When the first of the lists is due to be renewed.
    due: Option<Duration>,
}

impl Material for Revoked {
    const KIND: &'static str = "revocation list";
    const BYTES_MAX: u64 = BYTES_MAX;

    fn parse(files: &[FileText]) -> Result<Self, TlsError> {
        let mut revoked = Self::default();
        for FileText { path, bytes } in files {
            for list in lists(path, bytes)? {
                revoked.add(&list).map_err(|what| {
                    let remedy = "write it anew, as `openssl ca -gencrl` does";
                    TlsError::content(path, format!("x509: malformed crl: {what}: {remedy}"))
                })?;
            }
        }
        Ok(revoked)
    }

    fn ends(&self) -> Option<Duration> {
        self.due
    }
}

/// Reads a file of lists: when the first of them should be renewed, since the Unix epoch, if it says so.
///
/// # Errors
/// [`TlsError`].
pub fn revocation_list_due(path: &Path) -> Result<Option<Duration>, TlsError> {
    let text = FileText { path: path.to_owned(), bytes: contents(path, BYTES_MAX)? };
    Revoked::parse(&[text]).map(|revoked| revoked.due)
}

impl Revoked {
    /// Whether one of the certificates that were shown is revoked, in etcd's words.
    ///
    /// # Errors
    /// Which, or what is wrong with one of them.
    pub(super) fn check(&self, shown: &[CertificateDer<'_>]) -> Result<(), String> {
        for certificate in shown {
            let serial = serial(certificate)?;
            if self.serials.contains(serial.as_slice()) {
                let hex = serial.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
                return Err(format!("transport: certificate serial {hex} revoked"));
            }
        }
        Ok(())
    }

    fn add(&mut self, list: &[u8]) -> Result<(), &'static str> {
        let mut list = Reader::whole(list)?;
        let mut signed = Reader(list.next(Tag::Sequence, "no list")?);
        list.next(Tag::Sequence, "no algorithm of the signature")?;
        list.next(Tag::BitString, "no signature")?;
        list.end()?;
        if signed.optional(Tag::Integer)?.is_some_and(|version| version != SECOND) {
            return Err("unsupported crl version");
        }
        signed.next(Tag::Sequence, "no algorithm")?;
        signed.next(Tag::Sequence, "no issuer")?;
        signed.time()?.ok_or("no time of issue")?;
        if let Some(next) = signed.time()? {
            self.due = Some(self.due.map_or(next, |due| due.min(next)));
        }
        if let Some(entries) = signed.optional(Tag::Sequence)? {
            self.add_entries(Reader(entries))?;
        }
        signed.optional(Tag(0))?;
        signed.end()
    }

    fn add_entries(&mut self, mut entries: Reader<'_>) -> Result<(), &'static str> {
        while let Some(entry) = entries.optional(Tag::Sequence)? {
            let mut entry = Reader(entry);
            let serial = entry.next(Tag::Integer, "an entry without serial number")?;
            entry.time()?.ok_or("an entry without date")?;
            entry.optional(Tag::Sequence)?;
            entry.end()?;
            self.serials.insert(bare(serial).into());
        }
        entries.end()
    }
}

/// The lists in a file: one by itself, or any number in PEM.
fn lists<'b>(path: &Path, bytes: &'b [u8]) -> Result<Vec<CertificateRevocationListDer<'b>>, TlsError> {
    if !bytes.windows(PEM_MARK.len()).any(|window| window == PEM_MARK) {
        return Ok(vec![bytes.into()]);
    }
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    let lists = lists.map_err(|error| TlsError::content(path, format!("the PEM text is damaged: {error}")))?;
    if lists.is_empty() {
        return Err(TlsError::content(path, "x509: malformed crl: it needs a section BEGIN X509 CRL"));
    }
    Ok(lists)
}

fn serial(certificate: &[u8]) -> Result<Vec<u8>, String> {
    let (_, read) = X509Certificate::from_der(certificate).map_err(|error| format!("x509: {error}"))?;
    Ok(bare(read.raw_serial()).to_vec())
}

/// A number without the zeros that stand before it.
fn bare(number: &[u8]) -> &[u8] {
    number.iter().position(|byte| *byte != 0).and_then(|first| number.get(first..)).unwrap_or_default()
}

/// Elements of DER, one after the other.
struct Reader<'d>(&'d [u8]);

impl<'d> Reader<'d> {
    /// What is in the one sequence that `der` is.
    fn whole(der: &'d [u8]) -> Result<Self, &'static str> {
        let mut outside = Reader(der);
        let inside = outside.next(Tag::Sequence, "it is no DER")?;
        outside.end()?;
        Ok(Self(inside))
    }

    fn next(&mut self, tag: Tag, lacking: &'static str) -> Result<&'d [u8], &'static str> {
        self.optional(tag)?.ok_or(lacking)
    }

    fn optional(&mut self, tag: Tag) -> Result<Option<&'d [u8]>, &'static str> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (rest, element) = Any::from_der(self.0).map_err(|_| "its DER is damaged")?;
        if element.tag() != tag {
            return Ok(None);
        }
        self.0 = rest;
        Ok(Some(element.data))
    }

    /// A time since the Unix epoch, if there is one.
    fn time(&mut self) -> Result<Option<Duration>, &'static str> {
        let is_time =
            |der| Any::from_der(der).is_ok_and(|(_, any)| [Tag::UtcTime, Tag::GeneralizedTime].contains(&any.tag()));
        if !is_time(self.0) {
            return Ok(None);
        }
        let (rest, time) = ASN1Time::from_der(self.0).map_err(|_| "a time is damaged")?;
        self.0 = rest;
        Ok(Some(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))))
    }

    fn end(&self) -> Result<(), &'static str> {
        if self.0.is_empty() { Ok(()) } else { Err("there is more in it than there should be") }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rcgen::{
        CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
        RevokedCertParams, SerialNumber,
    };

    use super::*;

    fn list(serials: &[&[u8]]) -> Vec<u8> {
        let time = |days: u64| (UNIX_EPOCH + Duration::from_hours(24 * days)).into();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let revoked = |serial: &&[u8]| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: time(20_000),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: time(20_000),
            next_update: time(20_001),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).unwrap().der().to_vec()
    }

    fn read(bytes: Vec<u8>) -> Result<Revoked, String> {
        Revoked::parse(&[FileText { path: "x.crl".into(), bytes }]).map_err(|error| error.to_string())
    }

    #[test]
    fn serial_numbers_are_read_by_themselves_and_from_pem() {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let (one, two) = (list(&[&[0x80, 1], &[5]]), list(&[]));
        let revoked = read(one.clone()).unwrap();
        assert_eq!(revoked.serials, HashSet::from([[0x80, 1].as_slice().into(), [5].as_slice().into()]));
        assert_eq!(revoked.ends(), Some(Duration::from_hours(24 * 20_001)));
        let section =
            |der| format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", BASE64_STANDARD.encode(der));
        assert_eq!(read(format!("{}{}", section(&two), section(&one)).into_bytes()).unwrap().serials, revoked.serials);
        assert!(read(two).unwrap().serials.is_empty());
    }

    #[test]
    fn shown_certificates_are_compared_by_serial_number() {
        let certificate = |serial: &[u8]| {
            let mut params = CertificateParams::default();
            params.serial_number = Some(SerialNumber::from_slice(serial));
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let revoked = read(list(&[&[0x80, 1]])).unwrap();
        let (good, bad) = (certificate(&[0x81, 1]), certificate(&[0x80, 1]));
        assert_eq!(revoked.check(std::slice::from_ref(&good)), Ok(()));
        assert_eq!(revoked.check(&[good, bad]), Err("transport: certificate serial 8001 revoked".to_owned()));
        assert!(revoked.check(&[CertificateDer::from(vec![1])]).is_err());
    }

    /// Whatever byte is damaged, the list is refused or still has every number: none is left out silently.
    #[test]
    fn damage_is_never_an_empty_list() {
        let whole = list(&[&[7], &[9]]);
        for length in 0..whole.len() {
            assert!(read(whole[..length].to_vec()).is_err(), "cut at {length}");
        }
        for (at, mask) in (0..whole.len()).flat_map(|at| [(at, 1), (at, 0x20), (at, 0xff)]) {
            let mut damaged = whole.clone();
            damaged[at] ^= mask;
            assert!(read(damaged).ok().is_none_or(|read| read.serials.len() == 2), "{at} by {mask}");
        }
        let refused = read(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()).unwrap_err();
        assert!(refused.starts_with("x.crl: x509: malformed crl: it needs a section BEGIN X509 CRL"), "{refused}");
    }
}
