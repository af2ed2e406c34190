//! Counts what is in an encoded message before it is decoded.
//!
//! Decoded, an empty entry takes twenty times the bytes it is written in. The limits here keep what a message becomes in
//! memory near to what was received.

use bytes::Buf as _;
use prost::encoding::decode_varint;

use super::{CONFIGURATION_BYTES_MAX, CodecError, ENTRIES_MAX, length};

/// A message up to this long cannot exceed the limits by enough to matter, and is not looked at.
const UNCHECKED_BYTES_MAX: usize = 128 * 1024;

const ENTRIES: u64 = 7;
const SNAPSHOT: u64 = 9;
const METADATA: u64 = 2;

/// Checks the number of entries and the length of configurations.
pub(super) fn check(message: &[u8]) -> Result<(), CodecError> {
    if message.len() <= UNCHECKED_BYTES_MAX {
        return Ok(());
    }
    let (mut entries, mut configuration) = (0_u64, 0_u64);
    each_part(message, |field, part| {
        match field {
            ENTRIES => entries += 1,
            SNAPSHOT => configuration += metadata_bytes(part)?,
            _ => {}
        }
        if entries > ENTRIES_MAX {
            return Err(CodecError::TooMany(entries));
        }
        if configuration > CONFIGURATION_BYTES_MAX {
            return Err(CodecError::TooLong(configuration));
        }
        Ok(())
    })
}

fn metadata_bytes(snapshot: &[u8]) -> Result<u64, CodecError> {
    let mut bytes = 0;
    each_part(snapshot, |field, part| {
        if field == METADATA {
            bytes += length(part.len());
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// Shows every length-delimited field of a message with its number; skips all others.
fn each_part(mut message: &[u8], mut show: impl FnMut(u64, &[u8]) -> Result<(), CodecError>) -> Result<(), CodecError> {
    while !message.is_empty() {
        let key = decode_varint(&mut message)?;
        let skipped = match key & 7 {
            0 => {
                decode_varint(&mut message)?;
                continue;
            }
            1 => 8,
            2 => {
                let named = decode_varint(&mut message)?;
                let part =
                    usize::try_from(named).ok().and_then(|named| message.get(..named)).ok_or(CodecError::Field)?;
                show(key >> 3, part)?;
                part.len()
            }
            5 => 4,
            _ => return Err(CodecError::Field),
        };
        if skipped > message.len() {
            return Err(CodecError::Field);
        }
        message.advance(skipped);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::pb::raftpb;

    #[test]
    fn a_flood_of_empty_entries_is_refused_undecoded() {
        let flood = [0x3a, 0].repeat(usize::try_from(ENTRIES_MAX).unwrap() + 1);
        assert!(matches!(check(&flood), Err(CodecError::TooMany(_))));
        assert!(check(&flood[2..]).is_ok());
    }

    #[test]
    fn a_flood_of_members_is_refused_and_long_data_is_not() {
        let snapshot = |voters: usize, data: usize| raftpb::Message {
            snapshot: Some(raftpb::Snapshot {
                data: Bytes::from(vec![1; data]),
                metadata: Some(raftpb::SnapshotMetadata {
                    conf_state: Some(raftpb::ConfState { voters: vec![u64::MAX; voters], ..Default::default() }),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        };
        assert!(matches!(check(&snapshot(20_000, 10).encode_to_vec()), Err(CodecError::TooLong(_))));
        assert!(check(&snapshot(7, 1 << 20).encode_to_vec()).is_ok());
    }

    #[test]
    fn malformed_fields_are_refused() {
        let long = |mut tail: Vec<u8>| {
            let mut bytes = [8, 1].repeat(UNCHECKED_BYTES_MAX);
            bytes.append(&mut tail);
            bytes
        };
        for tail in
            [vec![0x3b], vec![0x3a, 5, 0], vec![0x39, 1], vec![0xff; 11], vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 1]]
        {
            assert!(check(&long(tail.clone())).is_err(), "{tail:?}");
        }
        assert!(check(&long(vec![0x3d, 1, 2, 3, 4])).is_ok());
    }
}
