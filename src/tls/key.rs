//! Private keys, by themselves or encrypted with a password (PKCS #8, RFC 5958 and RFC 8018).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use pkcs8::{EncryptedPrivateKeyInfoRef, pkcs5::EncryptionScheme};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

use super::{TlsError, kept::FileText};

/// The section that an encrypted key stands in (RFC 7468, §11).
const ENCRYPTED: [&str; 2] = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----END ENCRYPTED PRIVATE KEY-----"];
/// With what a key begins that only OpenSSL's older form encrypts.
const OLD_FORM: &str = "Proc-Type: 4,ENCRYPTED";
/// Most rounds that are made for a password: some seconds.
const ITERATIONS_MAX: u32 = 10_000_000;
/// How a password is given.
const GIVE: &str = "name a file with the password in key-password-file, or in peer-key-password-file between members";

/// The key in a file, if need be by one of the passwords in another one.
pub(super) fn private_key(file: &FileText, passwords: Option<&FileText>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let refuse = |what: &str| TlsError::content(&file.path, format!("tls: {what}"));
    let text = String::from_utf8_lossy(&file.bytes);
    if let Some(encrypted) = section(&text) {
        let passwords = passwords.ok_or_else(|| refuse(&format!("the private key is encrypted: {GIVE}")))?;
        return decrypted(encrypted, passwords).map_err(|what| refuse(&what));
    }
    if text.contains(OLD_FORM) {
        return Err(refuse(
            "the private key is encrypted in a form that is not taken: write it anew with `openssl pkcs8 -topk8`",
        ));
    }
    PrivateKeyDer::from_pem_slice(&file.bytes)
        .map_err(|_| refuse("failed to find any PEM data in key input: it needs a section BEGIN PRIVATE KEY"))
}

/// What is between the lines that enclose an encrypted key.
fn section(text: &str) -> Option<&str> {
    let [begin, end] = ENCRYPTED;
    let (_, behind) = text.split_once(begin)?;
    Some(behind.split_once(end).map_or(behind, |(inside, _)| inside))
}

fn decrypted(section: &str, passwords: &FileText) -> Result<PrivateKeyDer<'static>, String> {
    let packed: String = section.split_whitespace().collect();
    let der = BASE64_STANDARD.decode(packed).map_err(|_| "the PEM text of the private key is damaged".to_owned())?;
    let key = EncryptedPrivateKeyInfoRef::try_from(der.as_slice());
    let key = key.map_err(|error| format!("failed to parse the encrypted private key: {error}: {ANEW}"))?;
    if !is_taken(&key.encryption_algorithm) {
        return Err(format!("the private key is encrypted by a method that is not taken: {ANEW}"));
    }
    let text = String::from_utf8_lossy(&passwords.bytes);
    for password in text.lines().filter(|line| !line.is_empty()) {
        // Another password may be the right one.
        if let Ok(clear) = key.decrypt(password) {
            return Ok(PrivatePkcs8KeyDer::from(clear.as_bytes().to_vec()).into());
        }
    }
    Err(format!(
        "no password in {} opens the private key: put the right one there, alone in its line",
        passwords.path.display()
    ))
}

/// Whether a password is tried with bounded time and memory: scrypt could be told to take all there is.
fn is_taken(method: &EncryptionScheme) -> bool {
    let derived = method.pbes2().and_then(|parameters| parameters.kdf.pbkdf2());
    derived.is_some_and(|derived| derived.iteration_count <= ITERATIONS_MAX)
}

/// How a key is written that can be read.
const ANEW: &str = "write it anew with `openssl pkcs8 -topk8 -v2 aes-256-cbc`";
