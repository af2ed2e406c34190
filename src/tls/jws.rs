//! Keys of JSON web tokens, and the signatures made and checked with them (RFC 7518, §3; RFC 8037).
//!
//! Everything but P-521 is ring's. Keys are taken in the forms that etcd takes: PKCS #1, SEC 1 and PKCS #8 for private
//! ones, SPKI, PKCS #1 and certificates for public ones, all PEM. RSA keys below 2048 bits are refused by ring.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use p521::{
    ecdsa::signature::{Signer as _, Verifier as _},
    pkcs8::{DecodePrivateKey as _, EncodePublicKey as _},
};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair, VerificationAlgorithm},
};
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, pem::Pem, prelude::FromDer as _, x509::SubjectPublicKeyInfo};

/// Longest file of a key that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is in the file of a key.
///
/// # Errors
/// What reading failed with.
pub fn key_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut contents)?;
    Ok(contents)
}

/// How tokens are signed, in the names of RFC 7518.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC over a shared secret.
    Hmac(Strength),
    /// RSA with the padding of PKCS #1, version 1.5.
    Rsa(Strength),
    /// RSA with PSS.
    RsaPss(Strength),
    /// ECDSA on the curve of the same strength: P-256, P-384, P-521.
    Ecdsa(Strength),
    /// Ed25519.
    EdDsa,
}

/// Which of the SHA-2 hashes is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// SHA-256.
    S256,
    /// SHA-384.
    S384,
    /// SHA-512.
    S512,
}

use Strength::{S256, S384, S512};

/// All of them, by name.
const NAMES: [(&str, Algorithm); 13] = [
    ("HS256", Algorithm::Hmac(S256)),
    ("HS384", Algorithm::Hmac(S384)),
    ("HS512", Algorithm::Hmac(S512)),
    ("RS256", Algorithm::Rsa(S256)),
    ("RS384", Algorithm::Rsa(S384)),
    ("RS512", Algorithm::Rsa(S512)),
    ("PS256", Algorithm::RsaPss(S256)),
    ("PS384", Algorithm::RsaPss(S384)),
    ("PS512", Algorithm::RsaPss(S512)),
    ("ES256", Algorithm::Ecdsa(S256)),
    ("ES384", Algorithm::Ecdsa(S384)),
    ("ES512", Algorithm::Ecdsa(S512)),
    ("EdDSA", Algorithm::EdDsa),
];

/// Why keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Neither key, or not the one that is needed (etcd's text).
    #[error("auth: missing key data")]
    Missing,
    /// A private key and the public one of another (etcd's text).
    #[error("auth: public and private keys don't match")]
    Mismatch,
    /// The private key is not one for the algorithm.
    #[error("the private key is not one for {algorithm}: {what}")]
    Private {
        /// The name of the algorithm.
        algorithm: &'static str,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// The public key is not one for the algorithm.
    #[error("the public key is not one for {algorithm}: {what}")]
    Public {
        /// The name of the algorithm.
        algorithm: &'static str,
        /// What is wrong, and what would be right.
        what: String,
    },
}

impl Algorithm {
    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }
}

/// What tokens are signed and checked with. Shows nothing of its keys.
pub struct Keys {
    algorithm: Algorithm,
    signer: Option<Signer>,
    verifier: Verifier,
}

enum Signer {
    Hmac(hmac::Key),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    P521(p521::ecdsa::SigningKey),
    EdDsa(Ed25519KeyPair),
}

enum Verifier {
    Hmac(hmac::Key),
    Ring(&'static dyn VerificationAlgorithm, Vec<u8>),
    P521(p521::ecdsa::VerifyingKey),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Keys {
    /// Keys from the contents of their files. With the public key alone tokens can be checked and not made; of HMAC the
    /// private one is the secret itself.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn new(algorithm: Algorithm, private: Option<&[u8]>, public: Option<&[u8]>) -> Result<Self, KeyError> {
        let (private, public) = (private.filter(|key| !key.is_empty()), public.filter(|key| !key.is_empty()));
        if let Algorithm::Hmac(strength) = algorithm {
            let secret = private.ok_or(KeyError::Missing)?;
            let key = hmac::Key::new(hmac_of(strength), secret);
            return Ok(Self { algorithm, signer: Some(Signer::Hmac(key.clone())), verifier: Verifier::Hmac(key) });
        }
        let signer = private.map(|pem| Signer::read(algorithm, pem)).transpose()?;
        let named = public.map(|pem| public_key(algorithm, pem)).transpose()?;
        let derived = signer.as_ref().and_then(Signer::public_key);
        if named.as_ref().zip(derived.as_ref()).is_some_and(|(named, derived)| named != derived) {
            return Err(KeyError::Mismatch);
        }
        let verifier = Verifier::new(algorithm, derived.or(named).ok_or(KeyError::Missing)?)?;
        Ok(Self { algorithm, signer, verifier })
    }

    /// The algorithm they are for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether there is a key to sign with.
    pub fn can_sign(&self) -> bool {
        self.signer.is_some()
    }

    /// Signs `message`; nothing without a private key, or if the system has no chance to give.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self.signer.as_ref()? {
            Signer::Hmac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Signer::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*padding, &SystemRandom::new(), message, &mut signature).ok()?;
                Some(signature)
            }
            Signer::Ecdsa(pair) => Some(pair.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec()),
            Signer::P521(key) => {
                let signature: p521::ecdsa::Signature = key.try_sign(message).ok()?;
                Some(signature.to_bytes().to_vec())
            }
            Signer::EdDsa(pair) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// Whether `signature` is that of `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Verifier::Ring(algorithm, key) => {
                signature::UnparsedPublicKey::new(*algorithm, key).verify(message, signature).is_ok()
            }
            Verifier::P521(key) => p521::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

impl Signer {
    fn read(algorithm: Algorithm, pem: &[u8]) -> Result<Self, KeyError> {
        let refused = |what: String| KeyError::Private { algorithm: algorithm.name(), what };
        let (label, der) = first_block(pem).map_err(refused)?;
        let is_pkcs8 = label == "PRIVATE KEY";
        let wrong_form = |forms: &str| refused(format!("it is a {label}, {forms} is needed"));
        match algorithm {
            Algorithm::Rsa(_) | Algorithm::RsaPss(_) => {
                let pair = match label.as_str() {
                    "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der),
                    _ if is_pkcs8 => RsaKeyPair::from_pkcs8(&der),
                    _ => return Err(wrong_form("RSA PRIVATE KEY or PRIVATE KEY")),
                };
                Ok(Self::Rsa(pair.map_err(|why| refused(why.to_string()))?, padding_of(algorithm)))
            }
            Algorithm::Ecdsa(strength) => {
                let der = match label.as_str() {
                    "EC PRIVATE KEY" => pkcs8_around(strength, &der),
                    _ if is_pkcs8 => der,
                    _ => return Err(wrong_form("EC PRIVATE KEY or PRIVATE KEY")),
                };
                Self::ecdsa(strength, &der).map_err(refused)
            }
            Algorithm::EdDsa if is_pkcs8 => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
                pair.map(Self::EdDsa).map_err(|why| refused(why.to_string()))
            }
            Algorithm::EdDsa | Algorithm::Hmac(_) => Err(wrong_form("PRIVATE KEY")),
        }
    }

    fn ecdsa(strength: Strength, pkcs8: &[u8]) -> Result<Self, String> {
        let algorithm = match strength {
            S256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            S384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            S512 => {
                let key = p521::SecretKey::from_pkcs8_der(pkcs8).map_err(|why| why.to_string())?;
                return Ok(Self::P521(key.into()));
            }
        };
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &SystemRandom::new());
        pair.map(Self::Ecdsa).map_err(|why| why.to_string())
    }

    /// As [`public_key`].
    fn public_key(&self) -> Option<Vec<u8>> {
        Some(match self {
            Self::Hmac(_) => return None,
            Self::Rsa(pair, _) => pair.public_key().as_ref().to_vec(),
            Self::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
            Self::P521(key) => {
                let spki = key.verifying_key().to_public_key_der().ok()?;
                SubjectPublicKeyInfo::from_der(spki.as_bytes()).ok()?.1.subject_public_key.data.to_vec()
            }
            Self::EdDsa(pair) => pair.public_key().as_ref().to_vec(),
        })
    }
}

impl Verifier {
    fn new(algorithm: Algorithm, key: Vec<u8>) -> Result<Self, KeyError> {
        let refused = |what: String| KeyError::Public { algorithm: algorithm.name(), what };
        if algorithm == Algorithm::Ecdsa(S512) {
            let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(&key).map_err(|why| refused(why.to_string()))?;
            return Ok(Self::P521(key));
        }
        let verification: &dyn VerificationAlgorithm = match algorithm {
            Algorithm::Rsa(S256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Rsa(S384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Rsa(S512) => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::RsaPss(S256) => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::RsaPss(S384) => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::RsaPss(S512) => &signature::RSA_PSS_2048_8192_SHA512,
            Algorithm::Ecdsa(S256) => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::Ecdsa(_) => &signature::ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDsa | Algorithm::Hmac(_) => &signature::ED25519,
        };
        Ok(Self::Ring(verification, key))
    }
}

fn hmac_of(strength: Strength) -> hmac::Algorithm {
    match strength {
        S256 => hmac::HMAC_SHA256,
        S384 => hmac::HMAC_SHA384,
        S512 => hmac::HMAC_SHA512,
    }
}

fn padding_of(algorithm: Algorithm) -> &'static dyn RsaEncoding {
    match algorithm {
        Algorithm::RsaPss(S256) => &signature::RSA_PSS_SHA256,
        Algorithm::RsaPss(S384) => &signature::RSA_PSS_SHA384,
        Algorithm::RsaPss(S512) => &signature::RSA_PSS_SHA512,
        Algorithm::Rsa(S384) => &signature::RSA_PKCS1_SHA384,
        Algorithm::Rsa(S512) => &signature::RSA_PKCS1_SHA512,
        _ => &signature::RSA_PKCS1_SHA256,
    }
}

/// The label and contents of the first block of a PEM file.
fn first_block(pem: &[u8]) -> Result<(String, Vec<u8>), String> {
    match Pem::iter_from_buffer(pem).next() {
        Some(Ok(Pem { label, contents })) => Ok((label, contents)),
        Some(Err(why)) => Err(format!("the file is not PEM: {why}")),
        None => Err("the file holds no PEM block".to_owned()),
    }
}

/// The bytes of a public key, as they are inside of an SPKI structure.
fn public_key(algorithm: Algorithm, pem: &[u8]) -> Result<Vec<u8>, KeyError> {
    let refused = |what: String| KeyError::Public { algorithm: algorithm.name(), what };
    let (label, der) = first_block(pem).map_err(refused)?;
    let is_rsa = matches!(algorithm, Algorithm::Rsa(_) | Algorithm::RsaPss(_));
    let malformed = |why: &dyn fmt::Display| refused(why.to_string());
    match label.as_str() {
        "PUBLIC KEY" => {
            let (_, spki) = SubjectPublicKeyInfo::from_der(&der).map_err(|why| malformed(&why))?;
            bits_of(algorithm, &spki)
        }
        "CERTIFICATE" if algorithm != Algorithm::EdDsa => {
            let (_, certificate) = X509Certificate::from_der(&der).map_err(|why| malformed(&why))?;
            bits_of(algorithm, certificate.public_key())
        }
        "RSA PUBLIC KEY" if is_rsa => Ok(der),
        _ => Err(refused(format!("it is a {label}, PUBLIC KEY is needed"))),
    }
}

/// Refuses a key of another kind: ring would find out at the first token only.
fn bits_of(algorithm: Algorithm, spki: &SubjectPublicKeyInfo<'_>) -> Result<Vec<u8>, KeyError> {
    let curve =
        || spki.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok()).map(|oid| oid.to_id_string());
    let (wanted, wanted_curve) = match algorithm {
        Algorithm::Rsa(_) | Algorithm::RsaPss(_) => ("1.2.840.113549.1.1.1", None),
        Algorithm::Ecdsa(strength) => ("1.2.840.10045.2.1", Some(curve_of(strength).0)),
        Algorithm::EdDsa | Algorithm::Hmac(_) => ("1.3.101.112", None),
    };
    let fits = spki.algorithm.algorithm.to_id_string() == wanted
        && wanted_curve.is_none_or(|wanted| curve().is_some_and(|curve| curve == wanted));
    if !fits {
        let what = "it is of another kind or curve".to_owned();
        return Err(KeyError::Public { algorithm: algorithm.name(), what });
    }
    Ok(spki.subject_public_key.data.to_vec())
}

/// The identifier of a curve, in letters and as in DER.
fn curve_of(strength: Strength) -> (&'static str, &'static [u8]) {
    match strength {
        S256 => ("1.2.840.10045.3.1.7", &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
        S384 => ("1.3.132.0.34", &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]),
        S512 => ("1.3.132.0.35", &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23]),
    }
}

/// A key of SEC 1 in the form of PKCS #8 (RFC 5208, §5), which is what the libraries read.
fn pkcs8_around(strength: Strength, sec1: &[u8]) -> Vec<u8> {
    const VERSION: &[u8] = &[0x02, 0x01, 0x00];
    const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    let algorithm = der(SEQUENCE, &[EC_PUBLIC_KEY, curve_of(strength).1].concat());
    der(SEQUENCE, &[VERSION, &algorithm, &der(OCTET_STRING, sec1)].concat())
}

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;

/// One value of DER (X.690, §8.1).
fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let head = match significant.as_slice() {
        [] => vec![tag, 0],
        [short] if *short < 0x80 => vec![tag, *short],
        // The length of the length has one digit: a usize has eight bytes.
        long => [&[tag, 0x80 | u8::try_from(long.len()).unwrap_or_default()], long].concat(),
    };
    [head.as_slice(), contents].concat()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    /// What openssl makes of `input`.
    fn openssl(words: &str, input: &[u8]) -> Vec<u8> {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = command.spawn().expect("openssl is missing: apt-get install openssl");
        running.stdin.take().unwrap().write_all(input).unwrap();
        let output = running.wait_with_output().unwrap();
        assert!(output.status.success(), "openssl {words}");
        output.stdout
    }

    /// A private key for `algorithm`, as PKCS #8.
    fn private(algorithm: Algorithm) -> Vec<u8> {
        let kind = match algorithm {
            Algorithm::Hmac(_) => return b"a secret".to_vec(),
            Algorithm::Rsa(_) | Algorithm::RsaPss(_) => "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
            Algorithm::Ecdsa(S256) => "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            Algorithm::Ecdsa(S384) => "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
            Algorithm::Ecdsa(S512) => "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
            Algorithm::EdDsa => "-algorithm ed25519",
        };
        openssl(&format!("genpkey {kind}"), &[])
    }

    fn public(private: &[u8]) -> Vec<u8> {
        openssl("pkey -pubout", private)
    }

    fn signs_and_verifies(signer: &Keys, verifier: &Keys) -> bool {
        let signature = signer.sign(b"header.claims").unwrap();
        let mut wrong = signature.clone();
        wrong[10] ^= 1;
        assert!(!verifier.verify(b"header.claims", &wrong) && !verifier.verify(b"header.claim", &signature));
        assert!(!verifier.verify(b"header.claims", &signature[1..]) && !verifier.verify(b"header.claims", b""));
        verifier.verify(b"header.claims", &signature)
    }

    #[test]
    fn every_algorithm_signs_and_the_public_key_alone_verifies() {
        for (name, algorithm) in NAMES {
            assert_eq!((Algorithm::named(name), algorithm.name()), (Some(algorithm), name));
            let private = private(algorithm);
            let keys = Keys::new(algorithm, Some(&private), None).unwrap();
            assert!(signs_and_verifies(&keys, &keys), "{name}");
            if matches!(algorithm, Algorithm::Hmac(_)) {
                continue;
            }
            let public = public(&private);
            let verifier = Keys::new(algorithm, None, Some(&public)).unwrap();
            assert!(signs_and_verifies(&keys, &verifier), "{name}");
            assert!(!verifier.can_sign() && verifier.sign(b"header.claims").is_none());
            Keys::new(algorithm, Some(&private), Some(&public)).unwrap();
        }
    }

    #[test]
    fn older_forms_of_keys_are_the_same_keys() {
        let rsa = private(Algorithm::Rsa(S256));
        let pkcs8 = Keys::new(Algorithm::Rsa(S256), Some(&rsa), None).unwrap();
        let pkcs1 = openssl("rsa -traditional", &rsa);
        assert!(pkcs1.starts_with(b"-----BEGIN RSA PRIVATE KEY"));
        assert!(signs_and_verifies(&Keys::new(Algorithm::Rsa(S256), Some(&pkcs1), None).unwrap(), &pkcs8));
        let old_public = openssl("rsa -RSAPublicKey_out", &rsa);
        assert!(signs_and_verifies(&pkcs8, &Keys::new(Algorithm::Rsa(S256), None, Some(&old_public)).unwrap()));
        for strength in [S256, S384, S512] {
            let algorithm = Algorithm::Ecdsa(strength);
            let key = private(algorithm);
            let sec1 = openssl("ec", &key);
            assert!(sec1.starts_with(b"-----BEGIN EC PRIVATE KEY"));
            let (one, other) = (Keys::new(algorithm, Some(&key), None), Keys::new(algorithm, Some(&sec1), None));
            assert!(signs_and_verifies(&other.unwrap(), &one.unwrap()), "{strength:?}");
        }
    }

    #[test]
    fn certificates_name_a_public_key() {
        let algorithm = Algorithm::Ecdsa(S256);
        let key = private(algorithm);
        let certificate = openssl("req -x509 -new -key /dev/stdin -days 1 -subj /CN=tokens", &key);
        let signer = Keys::new(algorithm, Some(&key), Some(&certificate)).unwrap();
        assert!(signs_and_verifies(&signer, &Keys::new(algorithm, None, Some(&certificate)).unwrap()));
    }

    #[test]
    fn keys_that_do_not_fit_are_refused() {
        let algorithm = Algorithm::Ecdsa(S256);
        let refused =
            |private: Option<&[u8]>, public: Option<&[u8]>| Keys::new(algorithm, private, public).unwrap_err();
        let (key, other) = (private(algorithm), private(algorithm));
        assert_eq!(refused(None, None), KeyError::Missing);
        assert_eq!(refused(Some(b""), None), KeyError::Missing);
        assert_eq!(refused(Some(&key), Some(&public(&other))), KeyError::Mismatch);
        assert_eq!(Keys::new(Algorithm::Hmac(S256), None, Some(b"x")).unwrap_err(), KeyError::Missing);
        for wrong in [Algorithm::Rsa(S256), Algorithm::Ecdsa(S384), Algorithm::Ecdsa(S512), Algorithm::EdDsa] {
            let wrong = private(wrong);
            assert!(matches!(refused(Some(&wrong), None), KeyError::Private { .. }));
            assert!(matches!(refused(None, Some(&public(&wrong))), KeyError::Public { .. }));
        }
        for broken in ["no PEM", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert!(matches!(refused(Some(broken.as_bytes()), None), KeyError::Private { .. }), "{broken}");
            assert!(matches!(refused(None, Some(broken.as_bytes())), KeyError::Public { .. }), "{broken}");
        }
        let shown = format!("{:?}", Keys::new(Algorithm::Hmac(S256), Some(b"a secret"), None).unwrap());
        assert_eq!(shown, "Keys { algorithm: Hmac(S256), .. }");
    }
}
