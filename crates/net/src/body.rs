//! Reading a body whole, within a limit.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;

pub(crate) enum CollectError<E> {
    TooLong,
    Broken(E),
}

/// Stops at the first byte beyond the limit, or before the first when the length is announced.
pub(crate) async fn collect<B>(mut body: B, limit: usize) -> Result<Bytes, CollectError<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > limit {
        return Err(CollectError::TooLong);
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(part) = frame.map_err(CollectError::Broken)?.into_data() {
            if whole.len() + part.len() > limit {
                return Err(CollectError::TooLong);
            }
            whole.extend_from_slice(&part);
        }
    }
    Ok(whole.freeze())
}
