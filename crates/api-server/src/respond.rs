//! Answers: bodies, headers, and the one place where an error becomes a status.

use std::io;

use api_types::ErrorResponse;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use model::{Kind, Refusal};
use serde::Serialize;

use crate::stream::PIECE;

pub type Body = UnsyncBoxBody<Bytes, io::Error>;
pub type Answer = Response<Body>;
/// What a handler comes to.
pub type Outcome = Result<Answer, Refusal>;

/// The status of each kind of error. No handler names one.
fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

pub fn no_content() -> Outcome {
    Ok(empty(StatusCode::NO_CONTENT))
}

pub fn json<T: Serialize>(value: &T) -> Outcome {
    json_with(StatusCode::OK, value)
}

pub fn created<T: Serialize>(value: &T) -> Outcome {
    json_with(StatusCode::CREATED, value)
}

/// Items of a list that are sent together.
const TOGETHER_MAX: usize = 200;

/// A list. Of a long one the client has the first items while the others are made, as fast as it takes them.
pub fn json_list<T: Serialize>(items: impl ExactSizeIterator<Item = T> + Send + 'static) -> Outcome {
    if items.len() <= TOGETHER_MAX {
        return json(&items.collect::<Vec<T>>());
    }
    let pieces = futures_util::stream::unfold((items, true), |(mut items, is_first)| async move {
        (is_first || items.len() > 0).then(|| (list_piece(&mut items, is_first), (items, false)))
    });
    Ok(streamed("application/json", pieces))
}

/// The next items of a list, and the bracket behind the last.
fn list_piece<T: Serialize>(
    items: &mut impl ExactSizeIterator<Item = T>,
    is_first: bool,
) -> io::Result<Bytes> {
    let mut text = Vec::with_capacity(PIECE);
    let mut separator = if is_first { b'[' } else { b',' };
    // Half of it is room for the last.
    while text.len() < PIECE / 2
        && let Some(item) = items.next()
    {
        text.push(separator);
        separator = b',';
        serde_json::to_writer(&mut text, &item)?;
    }
    if items.len() == 0 {
        text.extend_from_slice(b"]\n");
    }
    Ok(text.into())
}

fn json_with<T: Serialize>(status: StatusCode, value: &T) -> Outcome {
    let mut bytes =
        serde_json::to_vec(value).map_err(|error| Refusal::from_error("cannot write the answer", &error))?;
    bytes.push(b'\n');
    let mut answer = Response::new(full(bytes));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

/// A body that comes in pieces; its headers are sent at once.
pub fn streamed(
    content_type: &'static str,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Answer {
    use futures_util::StreamExt;
    let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data)));
    let mut answer = Response::new(BodyExt::boxed_unsync(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A refusal's status and body, where the answer is not an HTTP one.
pub fn told(refusal: &Refusal) -> (StatusCode, Vec<u8>) {
    let body = ErrorResponse { message: refusal.message.clone(), hint: refusal.hint.clone() };
    (status(refusal.kind), serde_json::to_vec(&body).unwrap_or_default())
}

pub fn refused(refusal: &Refusal) -> Answer {
    if refusal.kind == Kind::NotModified {
        return empty(StatusCode::NOT_MODIFIED);
    }
    let body = ErrorResponse { message: refusal.message.clone(), hint: refusal.hint.clone() };
    json_with(status(refusal.kind), &body).unwrap_or_else(|_| empty(StatusCode::INTERNAL_SERVER_ERROR))
}

/// For paths and methods that do not exist.
pub fn not_found() -> Refusal {
    Refusal::not_found("page not found")
}
