//! Searching for images, in the form that the Hub's first API has.

use serde::Deserialize;

use crate::auth::Credentials;
use crate::error::{Error, shortened};
use crate::repository::Registries;
use crate::url::Url;

/// Where names without a domain are searched for.
pub const HUB_INDEX: &str = "https://index.docker.io";
const BYTES_MAX: u64 = 8 << 20;

/// One image that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct Found {
    #[serde(default, deserialize_with = "or_empty")]
    pub name: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub description: String,
    #[serde(default)]
    pub star_count: i64,
    #[serde(default)]
    pub is_official: bool,
    #[serde(default)]
    pub is_automated: bool,
}

fn or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

impl Registries {
    /// Searches `index` (an address) for a text.
    pub async fn search(
        &self,
        index: &str,
        term: &str,
        limit: u32,
        credentials: Credentials,
    ) -> Result<Vec<Found>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            results: Option<Vec<Found>>,
        }
        let address = if index.contains("://") { index.to_owned() } else { format!("https://{index}") };
        let url = Url::parse(&address).ok_or_else(|| Error::Address(shortened(index)))?;
        let url = url.join_path("/v1/search").with_query("q", term).with_query("n", &limit.to_string());
        let shown = url.to_string();
        let bytes = self.fetch_document(url, credentials, BYTES_MAX).await?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| Error::Answer {
            url: shown,
            what: format!("the search's answer is not valid: {error}"),
        })?;
        let mut found = answer.results.unwrap_or_default();
        found.truncate(limit as usize);
        Ok(found)
    }
}
