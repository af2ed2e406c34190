//! A range too long to be held, shown as JSON piece by piece.

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use prost::Message as _;
use serde::Serialize;

use crate::{
    api::{status::Status, v3::Parts},
    pb::etcdserverpb::RangeResponse,
};

/// The body of the answer. Reading that fails in the middle breaks the connection off, for the status is sent already.
pub(super) fn body(parts: Parts) -> Body {
    let writer = Writer { parts: Some(parts), kvs: false, fields: 0 };
    Body::from_stream(try_unfold(writer, |mut writer| async move {
        let text = writer.next().await.map_err(|status| status.message().to_owned())?;
        Ok::<_, String>(text.map(|text| (Bytes::from(text), writer)))
    }))
}

/// Puts a JSON object together from pieces of its message.
struct Writer {
    parts: Option<Parts>,
    /// Inside the list of pairs.
    kvs: bool,
    /// Fields begun.
    fields: usize,
}

impl Writer {
    async fn next(&mut self) -> Result<Option<String>, Status> {
        let Some(parts) = &mut self.parts else { return Ok(None) };
        let Some(part) = parts.next().await? else {
            self.parts = None;
            return Ok(Some(self.end()));
        };
        let part = RangeResponse::decode(part).map_err(|error| Status::unknown(error.to_string()))?;
        self.show(&part).map(Some).map_err(|error| Status::unknown(error.to_string()))
    }

    fn show(&mut self, part: &RangeResponse) -> Result<String, serde_json::Error> {
        let mut out = String::new();
        if let Some(header) = &part.header {
            self.field("header", header, &mut out)?;
        }
        for kv in &part.kvs {
            if self.kvs {
                out.push(',');
            } else {
                self.begin("kvs", &mut out);
                out.push('[');
                self.kvs = true;
            }
            out.push_str(&serde_json::to_string(kv)?);
        }
        if (part.more || part.count != 0) && std::mem::take(&mut self.kvs) {
            out.push(']');
        }
        if part.more {
            self.field("more", &true, &mut out)?;
        }
        if part.count != 0 {
            self.field("count", &part.count.to_string(), &mut out)?;
        }
        Ok(out)
    }

    fn begin(&mut self, name: &str, out: &mut String) {
        out.push(if self.fields == 0 { '{' } else { ',' });
        self.fields += 1;
        out.push('"');
        out.push_str(name);
        out.push_str("\":");
    }

    fn field(&mut self, name: &str, value: &impl Serialize, out: &mut String) -> Result<(), serde_json::Error> {
        self.begin(name, out);
        out.push_str(&serde_json::to_string(value)?);
        Ok(())
    }

    fn end(&mut self) -> String {
        let list = if self.kvs { "]" } else { "" };
        let object = if self.fields == 0 { "{}" } else { "}" };
        format!("{list}{object}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::{etcdserverpb::ResponseHeader, mvccpb::KeyValue};

    #[test]
    fn pieces_make_the_same_text_as_the_whole() {
        let kv = |key: &'static str| KeyValue { key: key.into(), version: 1, ..Default::default() };
        let header = Some(ResponseHeader { revision: 3, ..Default::default() });
        let pieces = [
            RangeResponse { header, ..Default::default() },
            RangeResponse { kvs: vec![kv("a"), kv("b")], ..Default::default() },
            RangeResponse { kvs: vec![kv("c")], ..Default::default() },
            RangeResponse { more: true, count: 9, ..Default::default() },
        ];
        let whole = RangeResponse { header, kvs: vec![kv("a"), kv("b"), kv("c")], more: true, count: 9 };
        let mut writer = Writer { parts: None, kvs: false, fields: 0 };
        let mut text: String = pieces.iter().map(|piece| writer.show(piece).unwrap()).collect();
        text.push_str(&writer.end());
        assert_eq!(text, serde_json::to_string(&whole).unwrap());
    }
}
