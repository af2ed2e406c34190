//! How the messages of a call travel: as they are, or compressed with gzip.
//!
//! gzip is the one compression etcd's server knows. A client that sends `grpc-encoding: gzip` gets its answers
//! compressed as well, messages above [`COMPRESSED_BYTES_MAX`] excepted: those leave piece by piece and are never held
//! whole, and compressing them would keep the other calls of the connection waiting.

use std::io::{self, Read as _};

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::{Compression, bufread::MultiGzDecoder, read::GzEncoder};
use http::{HeaderMap, HeaderValue};

use super::{PREFIX_BYTES, prefix};
use crate::{api::status::Status, types::Code};

/// The header that names the encoding of a side's messages.
pub(super) const GRPC_ENCODING: &str = "grpc-encoding";
/// Longest message that is compressed.
const COMPRESSED_BYTES_MAX: usize = 256 * 1024;
/// How every gzip stream begins (RFC 1952, §2.3.1).
const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The flag of a compressed message.
const COMPRESSED: u8 = 1;

/// The encoding of a call, the same both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Messages as they are.
    #[default]
    Identity,
    /// Messages may be compressed.
    Gzip,
}

impl Encoding {
    /// What the headers of a request ask for.
    ///
    /// # Errors
    /// `Unimplemented` for an encoding nobody here knows.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Status> {
        match headers.get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"" | b"identity") => Ok(Self::Identity),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                let text = format!("grpc: Decompressor is not installed for grpc-encoding {other:?}");
                Err(Status::unimplemented(text))
            }
        }
    }

    /// The name for the answer's headers, if it needs one.
    pub(super) fn header(self) -> Option<HeaderValue> {
        (self == Self::Gzip).then(|| HeaderValue::from_static("gzip"))
    }

    /// Whether a message with this flag in front may come; says so before the message is there.
    ///
    /// # Errors
    /// `Internal` for a flag that does not go with the encoding.
    pub(super) fn check_flag(self, flag: u8) -> Result<(), Status> {
        let text = match flag {
            0 => return Ok(()),
            COMPRESSED if self == Self::Gzip => return Ok(()),
            COMPRESSED => "grpc: compressed flag set with identity or empty encoding".to_owned(),
            _ => format!("grpc: received unexpected payload format {flag}"),
        };
        Err(Status::new(Code::Internal, text))
    }

    /// The message behind a flag that was checked.
    ///
    /// # Errors
    /// `Internal` for what is no gzip, `ResourceExhausted` for a message that is longer than `message_bytes_max` once it
    /// is unpacked; no more than that is ever unpacked.
    pub(super) fn open(flag: u8, payload: Bytes, message_bytes_max: usize) -> Result<Bytes, Status> {
        if flag == COMPRESSED { unpack(&payload, message_bytes_max).map(Bytes::from) } else { Ok(payload) }
    }

    /// Appends the frame of the message of `message_bytes` that `write` appends.
    ///
    /// # Errors
    /// For a message of 4 GiB or more.
    pub(super) fn frame(
        self,
        message_bytes: usize,
        write: impl FnOnce(&mut BytesMut),
        out: &mut BytesMut,
    ) -> Result<(), std::num::TryFromIntError> {
        if self.compresses(message_bytes) {
            let mut message = BytesMut::with_capacity(message_bytes);
            write(&mut message);
            out.put_slice(&packed_frame(&message));
            return Ok(());
        }
        out.reserve(PREFIX_BYTES + message_bytes);
        out.put_slice(&prefix(u32::try_from(message_bytes)?));
        write(out);
        Ok(())
    }

    /// A finished frame as this encoding sends it.
    pub(super) fn reframe(self, frame: Bytes) -> Bytes {
        match frame.get(PREFIX_BYTES..) {
            Some(message) if self.compresses(message.len()) => packed_frame(message),
            _ => frame,
        }
    }

    fn compresses(self, message_bytes: usize) -> bool {
        self == Self::Gzip && (1..=COMPRESSED_BYTES_MAX).contains(&message_bytes)
    }
}

/// The frame of a short message, compressed for speed.
fn packed_frame(message: &[u8]) -> Bytes {
    let mut frame = vec![0; PREFIX_BYTES];
    GzEncoder::new(message, Compression::fast()).read_to_end(&mut frame).expect("reading memory does not fail");
    let bytes = u32::try_from(frame.len() - PREFIX_BYTES).expect("a short message is short when compressed");
    let [_, length @ ..] = prefix(bytes);
    if let Some(head) = frame.first_chunk_mut::<PREFIX_BYTES>() {
        let [a, b, c, d] = length;
        *head = [COMPRESSED, a, b, c, d];
    }
    frame.into()
}

fn unpack(payload: &[u8], message_bytes_max: usize) -> Result<Vec<u8>, Status> {
    if !payload.starts_with(&MAGIC) {
        return Err(Status::new(Code::Internal, "grpc: failed to decompress the message: gzip: invalid header"));
    }
    let mut message = Vec::new();
    let limit = u64::try_from(message_bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let broken =
        |error: io::Error| Status::new(Code::Internal, format!("grpc: failed to read decompressed data: {error}"));
    MultiGzDecoder::new(payload).take(limit).read_to_end(&mut message).map_err(broken)?;
    if message.len() > message_bytes_max {
        let text = format!("grpc: received message after decompression larger than max {message_bytes_max}");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(encoding: &'static str) -> Result<Encoding, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_ENCODING, HeaderValue::from_static(encoding));
        Encoding::of(&headers)
    }

    fn opened(frame: &[u8], message_bytes_max: usize) -> Result<Bytes, Status> {
        Encoding::open(frame[0], Bytes::copy_from_slice(&frame[PREFIX_BYTES..]), message_bytes_max)
    }

    #[test]
    fn only_gzip_is_known() {
        assert_eq!(Encoding::of(&HeaderMap::new()), Ok(Encoding::Identity));
        assert_eq!((asked("identity"), asked("gzip")), (Ok(Encoding::Identity), Ok(Encoding::Gzip)));
        let refused = asked("deflate").unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert_eq!(refused.message(), "grpc: Decompressor is not installed for grpc-encoding \"deflate\"");
    }

    #[test]
    fn flags_go_with_the_encoding() {
        assert_eq!(Encoding::Gzip.check_flag(1), Ok(()));
        assert_eq!(Encoding::Identity.check_flag(0), Ok(()));
        let refused = Encoding::Identity.check_flag(1).unwrap_err();
        assert_eq!(refused.message(), "grpc: compressed flag set with identity or empty encoding");
        assert_eq!(Encoding::Gzip.check_flag(2).unwrap_err().code(), Code::Internal);
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let bomb = packed_frame(&vec![0; COMPRESSED_BYTES_MAX]);
        assert!(bomb.len() < 2_000);
        assert_eq!(opened(&bomb, COMPRESSED_BYTES_MAX).map(|message| message.len()), Ok(COMPRESSED_BYTES_MAX));
        let refused = opened(&bomb, COMPRESSED_BYTES_MAX - 1).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), "grpc: received message after decompression larger than max 262143");
    }

    #[test]
    fn long_and_empty_messages_are_not_compressed() {
        for bytes in [0, COMPRESSED_BYTES_MAX + 1] {
            let frame = Bytes::from([&prefix(u32::try_from(bytes).unwrap())[..], &vec![7; bytes]].concat());
            assert_eq!(Encoding::Gzip.reframe(frame.clone()), frame);
        }
    }

    proptest! {
        #[test]
        fn what_is_framed_is_opened(message in prop::collection::vec(any::<u8>(), 0..300)) {
            for encoding in [Encoding::Identity, Encoding::Gzip] {
                let mut frame = BytesMut::new();
                encoding.frame(message.len(), |out| out.put_slice(&message), &mut frame).unwrap();
                prop_assert_eq!(usize::try_from(u32::from_be_bytes(frame[1..5].try_into().unwrap())), Ok(frame.len() - 5));
                prop_assert_eq!(encoding.check_flag(frame[0]), Ok(()));
                prop_assert_eq!(opened(&frame, 300).unwrap(), &message);
            }
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            bytes.splice(0..0, MAGIC);
            if let Ok(message) = unpack(&bytes, 100) {
                prop_assert!(message.len() <= 100);
            }
        }
    }
}
