//! Files from anywhere on the web, for what imports them.

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::error::{Error, shortened};
use crate::repository::Registries;
use crate::settings::Endpoint;
use crate::transport::{Answer, Ask, Payload};
use crate::url::Url;

/// Bytes that are read of the page which says why there is no file.
const PAGE_BYTES_MAX: u64 = 64 << 10;

/// A file's bytes on their way, as they come.
pub struct Download {
    answer: Answer,
}

impl Download {
    /// Bytes of the whole; not every server tells.
    pub fn length(&self) -> Option<u64> {
        self.answer.length()
    }

    /// The next bytes; nothing at the end. A body that is shorter than was said is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.answer.piece().await
    }
}

impl Registries {
    /// Begins to fetch a file. An address without a scheme is meant for plain HTTP. Proxies, and what is known of the
    /// host's certificates, are those that hold for registries.
    pub async fn download(&self, address: &str) -> Result<Download, Error> {
        let whole = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let url = Url::parse(&whole).ok_or_else(|| Error::Url(shortened(address)))?;
        let endpoint = Endpoint { base: url.clone(), ..self.settings().origin(&url.authority)? };
        let ask = Ask {
            method: Method::GET,
            url: url.clone(),
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            endpoint: &endpoint,
            authorization: None,
            retry: true,
        };
        let answer = self.transport().send(ask).await?;
        if answer.status.is_success() {
            return Ok(Download { answer });
        }
        let status = answer.status;
        let body = answer.bytes(PAGE_BYTES_MAX).await.unwrap_or_default();
        let said = shortened(String::from_utf8_lossy(&body).trim());
        Err(Error::Download { url: whole, status: status.as_u16(), said })
    }
}
