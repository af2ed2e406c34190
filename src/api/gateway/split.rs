//! Cuts the body of a streaming request into its JSON objects.

/// Finds the ends of top-level objects in text that arrives in pieces.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    buffer: Vec<u8>,
    /// Bytes of the buffer looked at already.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// One object, complete.
    Object(Vec<u8>),
    /// Nothing complete; more must arrive.
    Incomplete,
    /// Something that is no object, up to here.
    Garbage,
}

impl Splitter {
    /// Takes more text in.
    pub(super) fn push(&mut self, text: &[u8]) {
        self.buffer.extend_from_slice(text);
    }

    /// Bytes held.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing but blanks is left.
    pub(super) fn is_blank(&self) -> bool {
        self.buffer.trim_ascii().is_empty()
    }

    /// The next object.
    pub(super) fn next(&mut self) -> Found {
        if self.depth == 0 {
            let blank = self.buffer.len() - self.buffer.trim_ascii_start().len();
            self.buffer.drain(..blank);
            self.seen = 0;
            match self.buffer.first() {
                None => return Found::Incomplete,
                Some(b'{') => {}
                Some(_) => return Found::Garbage,
            }
        }
        let unseen = self.buffer.get(self.seen..).unwrap_or_default().to_vec();
        for byte in unseen {
            self.seen += 1;
            if self.closes(byte) {
                return Found::Object(self.buffer.drain(..std::mem::take(&mut self.seen)).collect());
            }
        }
        Found::Incomplete
    }

    /// Follows one byte; true if it ends the object.
    fn closes(&mut self, byte: u8) -> bool {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            b'{' if !self.in_string => self.depth += 1,
            b'}' if !self.in_string => {
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn objects_are_found_whatever_the_pieces() {
        let objects = [r#"{"a":"}{\"\\"}"#, "{}", r#"{"b":{"c":[{}]}}"#];
        let body = format!(" {}\n{}{} ", objects[0], objects[1], objects[2]);
        for size in 1..=body.len() {
            let mut splitter = Splitter::default();
            let mut seen = Vec::new();
            for piece in body.as_bytes().chunks(size) {
                splitter.push(piece);
                while let Found::Object(object) = splitter.next() {
                    seen.push(String::from_utf8(object).unwrap());
                }
            }
            assert_eq!(seen, objects, "pieces of {size}");
            assert!(splitter.is_blank());
        }
    }

    #[test]
    fn anything_else_is_garbage() {
        let mut splitter = Splitter::default();
        splitter.push(b"{} ]");
        assert_eq!(splitter.next(), Found::Object(b"{}".to_vec()));
        assert_eq!(splitter.next(), Found::Garbage);
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_or_refused(pieces in prop::collection::vec("[{}\"\\\\a ]{0,8}", 0..8)) {
            let mut splitter = Splitter::default();
            for piece in pieces {
                splitter.push(piece.as_bytes());
                while let Found::Object(object) = splitter.next() {
                    let whole = object.starts_with(b"{") && object.ends_with(b"}");
                    prop_assert!(whole);
                }
            }
        }
    }
}
