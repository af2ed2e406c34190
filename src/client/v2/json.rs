//! Answers in JSON, and what is wrong with those that are none, in the words of Go's decoder.

use serde::de::DeserializeOwned;
use serde_json::{Value, error::Category};

use super::V2Error;

/// Reads a whole answer.
///
/// # Errors
/// [`V2Error::BadJson`].
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, V2Error> {
    serde_json::from_slice(body).map_err(|error| V2Error::BadJson(complaint(&error, body)))
}

/// What a refusal says.
///
/// # Errors
/// [`V2Error::BadJson`] if it says nothing.
pub(super) fn refusal(body: &[u8]) -> Result<V2Error, V2Error> {
    let value: Value = read(body)?;
    Ok(V2Error::Refused(value.get("message").and_then(Value::as_str).unwrap_or_default().to_owned()))
}

/// What a member says of its health. Newer ones say it with a text, older ones with a truth value.
///
/// # Errors
/// [`V2Error::BadJson`].
pub(super) fn health(body: &[u8]) -> Result<bool, V2Error> {
    let value: Value = read(body)?;
    let health = value.get("health").or_else(|| value.get("Health"));
    Ok(health.is_some_and(|health| health == "true" || *health == Value::Bool(true)))
}

fn complaint(error: &serde_json::Error, body: &[u8]) -> String {
    let Some(byte) = offending(error, body).filter(|_| error.classify() == Category::Syntax) else {
        return match error.classify() {
            Category::Data => format!("json: {error}"),
            _ => "unexpected end of JSON input".to_owned(),
        };
    };
    let place = if error.to_string().starts_with("trailing") {
        "after top-level value"
    } else {
        "looking for beginning of value"
    };
    format!("invalid character {:?} {place}", char::from(byte))
}

/// The byte that a syntax error is about.
fn offending(error: &serde_json::Error, body: &[u8]) -> Option<u8> {
    let line = body.split(|byte| *byte == b'\n').nth(error.line().checked_sub(1)?)?;
    line.get(error.column().checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint_about(body: &str) -> String {
        read::<Value>(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn complaints_use_the_words_of_go() {
        assert_eq!(complaint_about(""), "unexpected end of JSON input");
        assert_eq!(complaint_about("<html>"), "invalid character '<' looking for beginning of value");
        assert_eq!(complaint_about("404 page not found"), "invalid character 'p' after top-level value");
    }

    #[test]
    fn health_is_a_text_or_a_truth_value() {
        assert_eq!(health(br#"{"health":"true","reason":""}"#), Ok(true));
        assert_eq!(health(br#"{"health":true}"#), Ok(true));
        assert_eq!(health(br#"{"health":"false"}"#), Ok(false));
        assert!(health(b"ok").is_err());
    }
}
