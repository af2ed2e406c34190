//! Keys that sort as their parts do.
//!
//! A user key that something follows is escaped: `00` becomes `00 ff`, and `00 01` ends it. Then the escaped forms of
//! two keys compare as the keys themselves do, whatever follows, and no escaped key is a prefix of another.

/// Appends the escaped form of `key` and its end mark.
pub fn escape_into(key: &[u8], out: &mut Vec<u8>) {
    for byte in key {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 1]);
}
