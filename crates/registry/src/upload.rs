//! A blob on its way to a registry.

use bytes::Bytes;
use futures_util::Stream;
use http::header::{CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use oci::Digest;

use crate::auth::{Access, Plea, scope};
use crate::error::Error;
use crate::repository::{Call, Need, Repository};
use crate::settings::Endpoint;
use crate::transport::{Answer, Payload};
use crate::url::Url;

/// What came of asking for a blob from another repository.
pub enum Mounted {
    Yes,
    /// It has to be sent.
    No(Box<Upload>),
}

/// An upload that the registry has begun. It stays there for a while if the connection breaks.
pub struct Upload {
    endpoint: Endpoint,
    location: Url,
    /// Bytes that the registry has.
    pub sent: u64,
}

impl Repository {
    /// Begins an upload, or takes the blob over from another repository of the same registry.
    pub async fn start_upload(&self, mount: Option<(&Digest, &str)>) -> Result<Mounted, Error> {
        let endpoint = self.push_endpoint().ok_or_else(|| Error::Answer {
            url: self.name().to_owned(),
            what: "no configured host takes pushes".into(),
        })?;
        let digest = mount.map(|(digest, _)| digest.to_string()).unwrap_or_default();
        let query: Vec<(&str, &str)> = match mount {
            Some((_, from)) => vec![("mount", digest.as_str()), ("from", from)],
            None => Vec::new(),
        };
        let call =
            Call { query: &query, body: Some(Bytes::new()), ..Call::new(Method::POST, "/blobs/uploads/") };
        let answer = self.send(&endpoint, Need::Push, &call).await?;
        match answer.status {
            StatusCode::CREATED if mount.is_some() => {
                answer.discard().await;
                Ok(Mounted::Yes)
            }
            StatusCode::ACCEPTED => {
                let location = location(&answer)?;
                answer.discard().await;
                Ok(Mounted::No(Box::new(Upload { endpoint, location, sent: 0 })))
            }
            _ => Err(answer.into_error().await),
        }
    }

    async fn upload_call(
        &self,
        upload: &Upload,
        method: Method,
        url: Url,
        headers: HeaderMap,
        payload: Payload,
    ) -> Result<Answer, Error> {
        let scopes = [scope(self.name(), Access::Push)];
        let endpoint = &upload.endpoint;
        self.sender().send(Plea { method, url, headers, payload, endpoint, scopes: &scopes }).await
    }

    /// Sends the bytes from [`Upload::sent`] on, as one request.
    pub async fn send_bytes(
        &self,
        upload: &mut Upload,
        pieces: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        length: Option<u64>,
    ) -> Result<(), Error> {
        use futures_util::StreamExt;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Some(length) = length.filter(|_| upload.sent > 0) {
            let range = format!("{}-{}", upload.sent, (upload.sent + length).saturating_sub(1));
            headers.insert(http::header::CONTENT_RANGE, HeaderValue::from_str(&range).expect("plain text"));
        }
        let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data)));
        let payload = Payload::Stream(BodyExt::boxed_unsync(body), length);
        let url = upload.location.clone();
        let answer = self.upload_call(upload, Method::PATCH, url, headers, payload).await?;
        if !matches!(answer.status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED) {
            return Err(answer.into_error().await);
        }
        upload.location = location(&answer)?;
        upload.sent = reached(&answer).unwrap_or(upload.sent + length.unwrap_or(0));
        answer.discard().await;
        Ok(())
    }

    /// Asks how far an upload came whose connection broke.
    pub async fn find_upload(&self, upload: &mut Upload) -> Result<(), Error> {
        let url = upload.location.clone();
        let answer = self.upload_call(upload, Method::GET, url, HeaderMap::new(), Payload::Empty).await?;
        if !answer.status.is_success() {
            return Err(answer.into_error().await);
        }
        if let Ok(found) = location(&answer) {
            upload.location = found;
        }
        upload.sent = reached(&answer).unwrap_or(0);
        answer.discard().await;
        Ok(())
    }

    /// Ends an upload. The registry checks the digest.
    pub async fn finish_upload(&self, upload: Box<Upload>, digest: &Digest) -> Result<(), Error> {
        let url = upload.location.clone().with_query("digest", digest.as_str());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let answer =
            self.upload_call(&upload, Method::PUT, url, headers, Payload::Bytes(Bytes::new())).await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => {
                answer.discard().await;
                Ok(())
            }
            _ => Err(answer.into_error().await),
        }
    }

    /// Gives an upload up.
    pub async fn cancel_upload(&self, upload: Box<Upload>) {
        let url = upload.location.clone();
        if let Ok(answer) =
            self.upload_call(&upload, Method::DELETE, url, HeaderMap::new(), Payload::Empty).await
        {
            answer.discard().await;
        }
    }
}

fn location(answer: &Answer) -> Result<Url, Error> {
    let text = answer.header(LOCATION);
    answer.url.resolve(text).filter(|_| !text.is_empty()).ok_or_else(|| Error::Answer {
        url: answer.url.to_string(),
        what: "the registry does not say where the upload goes on".into(),
    })
}

/// Bytes that the registry has, from `Range: 0-<last>`. `0-0` is one byte or none.
fn reached(answer: &Answer) -> Option<u64> {
    let range = answer.header(RANGE);
    let last: u64 = range.trim_start_matches("bytes=").split_once('-')?.1.parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}
