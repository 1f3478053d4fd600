//! The body of a request (`rest-api.md` §1.5).

use primacy_net::{BodyError, HeaderMap, RequestBody, header};
use serde_json::{Map, Value};

use super::answer::{Answer, ErrorPage};

/// Whether the client says that a body comes, and how long it is. One in chunks has no length beforehand; to
/// overlook it, as HTTP/1.0 servers do, would restart a server whatever the filters in it say.
fn is_announced(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_some() || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Reads a body without which the request means nothing.
pub(crate) async fn required(
    headers: &HeaderMap,
    body: RequestBody,
) -> Result<Map<String, Value>, Answer> {
    if !is_announced(headers) {
        return Err(Answer::Page(ErrorPage::LengthRequired));
    }
    object(&read(body).await?)
        .filter(|object| !object.is_empty())
        .ok_or(BAD_REQUEST)
}

/// Reads a body that may be left out.
pub(crate) async fn optional(
    headers: &HeaderMap,
    body: RequestBody,
) -> Result<Map<String, Value>, Answer> {
    let is_empty = headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length == "0");
    if is_empty || !is_announced(headers) {
        return Ok(Map::new());
    }
    object(&read(body).await?).ok_or(BAD_REQUEST)
}

const BAD_REQUEST: Answer = Answer::Page(ErrorPage::BadRequest);

async fn read(body: RequestBody) -> Result<bytes::Bytes, Answer> {
    body.read().await.map_err(|error| match error {
        BodyError::TooLong(_) => Answer::Page(ErrorPage::TooLarge),
        BodyError::TimedOut | BodyError::Broken => BAD_REQUEST,
    })
}

fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}
