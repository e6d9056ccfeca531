//! Who asks: credentials, and the tokens that they are turned into.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;

use crate::base64;
use crate::challenge::{self, Challenge};
use crate::error::{Error, Kind, shortened};
use crate::settings::Endpoint;
use crate::transport::{Answer, Ask, Payload, Transport, method_name};
use crate::url::{Scheme, Url, encode};

/// How tokens' servers know this program: the name that those of Docker expect.
const CLIENT_ID: &str = "docker";
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// What a token without a time is good for, and how long before its end it is not used any more.
const TOKEN_TIME: Duration = Duration::from_secs(60);
const TOKEN_MARGIN: Duration = Duration::from_secs(10);
/// Tokens that are remembered.
const TOKENS_MAX: usize = 1000;

/// What somebody shows to a registry; all empty is nobody.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// A lasting token that is exchanged for short ones.
    pub identity_token: String,
    /// A token that is shown as it is.
    pub registry_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    pub fn is_anonymous(&self) -> bool {
        self.username.is_empty() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }

    fn basic(&self) -> String {
        format!("Basic {}", base64::encode(format!("{}:{}", self.username, self.password).as_bytes()))
    }
}

/// What may be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    Pull,
    Push,
}

/// The rights that a request needs, as tokens' servers write them.
pub(crate) fn scope(name: &str, access: Access) -> String {
    let actions = match access {
        Access::Pull => "pull",
        Access::Push => "pull,push",
    };
    format!("repository:{name}:{actions}")
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    origin: String,
    scopes: Vec<String>,
    credentials: Credentials,
}

#[derive(Debug, Clone)]
struct Kept {
    authorization: HeaderValue,
    until: Option<Instant>,
}

/// What registries have accepted lately; shared by all pieces of work.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<Key, Kept>>);

/// What a token's server gives.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Given {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    /// Seconds.
    expires_in: Option<u64>,
}

/// A challenge answered: the header for the next try, and a lasting token if one was asked for and given.
pub(crate) struct Granted {
    pub authorization: HeaderValue,
    pub refresh_token: Option<String>,
    until: Option<Instant>,
}

impl Tokens {
    fn get(&self, key: &Key) -> Option<HeaderValue> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.get(key)?;
        if found.until.is_some_and(|until| until <= Instant::now()) {
            kept.remove(key);
            return None;
        }
        Some(found.authorization.clone())
    }

    fn put(&self, key: Key, granted: &Granted) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= TOKENS_MAX {
            let now = Instant::now();
            kept.retain(|_, one| one.until.is_some_and(|until| until > now));
            if kept.len() >= TOKENS_MAX {
                kept.clear();
            }
        }
        kept.insert(key, Kept { authorization: granted.authorization.clone(), until: granted.until });
    }

    fn forget(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Sends requests in somebody's name.
pub(crate) struct Sender {
    pub transport: Arc<Transport>,
    pub tokens: Arc<Tokens>,
    pub credentials: Credentials,
}

/// What is sent, short of who sends it.
pub(crate) struct Plea<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub payload: Payload,
    pub endpoint: &'a Endpoint,
    pub scopes: &'a [String],
}

impl Sender {
    /// Sends a request, and once more with what the registry wants to see. Any status but 401 is an answer.
    pub async fn send(&self, plea: Plea<'_>) -> Result<Answer, Error> {
        let Plea { method, url, headers, payload, endpoint, scopes } = plea;
        let credentials = if endpoint.is_origin { self.credentials.clone() } else { Credentials::default() };
        let origin = format!("{}://{}", endpoint.base.scheme, endpoint.base.authority);
        let key = Key { origin, scopes: scopes.to_vec(), credentials };
        let again = match &payload {
            Payload::Empty => Some(Payload::Empty),
            Payload::Bytes(bytes) => Some(Payload::Bytes(bytes.clone())),
            Payload::Stream(..) => None,
        };
        let retry = matches!(method, Method::GET | Method::HEAD);
        let authorization = self.first_authorization(&key);
        let had_token = authorization.is_some();
        let first = Ask {
            method: method.clone(),
            url: url.clone(),
            headers: headers.clone(),
            payload,
            endpoint,
            authorization,
            retry,
        };
        let answer = self.transport.send(first).await?;
        if answer.status != http::StatusCode::UNAUTHORIZED || !answer.url.same_origin(&url) {
            return Ok(answer);
        }
        if had_token {
            self.tokens.forget(&key);
        }
        let challenges = challenges(&answer);
        let Some(payload) = again else { return Err(answer.into_error().await) };
        if challenges.is_empty() || !key.credentials.registry_token.is_empty() {
            return Err(answer.into_error().await);
        }
        answer.discard().await;
        let granted = self.grant(&challenges, &key, endpoint, (&method, &url), false).await?;
        self.tokens.put(key.clone(), &granted);
        let authorization = Some(granted.authorization);
        let answer = self
            .transport
            .send(Ask { method, url, headers, payload, endpoint, authorization, retry })
            .await?;
        if answer.status == http::StatusCode::UNAUTHORIZED {
            self.tokens.forget(&key);
            return Err(answer.into_error().await);
        }
        Ok(answer)
    }

    fn first_authorization(&self, key: &Key) -> Option<HeaderValue> {
        if !key.credentials.registry_token.is_empty() {
            return HeaderValue::from_str(&format!("Bearer {}", key.credentials.registry_token)).ok();
        }
        self.tokens.get(key)
    }

    /// Checks credentials at the registry's root. Gives a lasting token if the registry hands one out.
    pub async fn log_in(&self, endpoint: &Endpoint) -> Result<Option<String>, Error> {
        let url = endpoint.base.join_path("/");
        let ask = |authorization| Ask {
            method: Method::GET,
            url: url.clone(),
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            endpoint,
            authorization,
            retry: true,
        };
        let refused = |error: Error| match error {
            Error::Registry { .. } | Error::Status { .. } if error.kind() == Kind::Unauthorized => {
                Error::LogIn { url: url.to_string() }
            }
            other => other,
        };
        let answer = self.transport.send(ask(None)).await?;
        if answer.status.is_success() {
            answer.discard().await;
            return Ok(None);
        }
        let challenges = challenges(&answer);
        if answer.status != http::StatusCode::UNAUTHORIZED || challenges.is_empty() {
            return Err(refused(answer.into_error().await));
        }
        answer.discard().await;
        let key = Key { origin: String::new(), scopes: Vec::new(), credentials: self.credentials.clone() };
        let granted = self.grant(&challenges, &key, endpoint, (&Method::GET, &url), true).await?;
        let answer = self.transport.send(ask(Some(granted.authorization))).await?;
        if !answer.status.is_success() {
            return Err(refused(answer.into_error().await));
        }
        answer.discard().await;
        Ok(granted.refresh_token)
    }

    /// Answers the first challenge that can be answered; tokens go before passwords.
    async fn grant(
        &self,
        challenges: &[Challenge],
        key: &Key,
        endpoint: &Endpoint,
        (method, url): (&Method, &Url),
        lasting: bool,
    ) -> Result<Granted, Error> {
        for challenge in challenges {
            if let Challenge::Bearer { realm, service, scope, .. } = challenge {
                let mut scopes = key.scopes.clone();
                scopes.extend(scope.split(' ').filter(|one| !one.is_empty()).map(String::from));
                scopes.sort();
                scopes.dedup();
                return self.token(realm, service, &scopes, &key.credentials, endpoint, lasting).await;
            }
        }
        let (method, url) = (method_name(method), url.to_string());
        if key.credentials.username.is_empty() {
            return Err(Error::NoCredentials { method, url });
        }
        let authorization = HeaderValue::from_str(&key.credentials.basic())
            .map_err(|_| Error::NoCredentials { method, url })?;
        Ok(Granted { authorization, refresh_token: None, until: None })
    }

    async fn token(
        &self,
        realm: &str,
        service: &str,
        scopes: &[String],
        credentials: &Credentials,
        endpoint: &Endpoint,
        lasting: bool,
    ) -> Result<Granted, Error> {
        let no_realm = |what: &str| Error::Answer {
            url: endpoint.base.to_string(),
            what: format!("the token server {:?} {what}", shortened(realm)),
        };
        let url = Url::parse(realm).ok_or_else(|| no_realm("is not a valid address"))?;
        // Who speaks TLS to the registry does not tell the password to everybody on the way to another server.
        let downgrade = url.scheme == Scheme::Http && endpoint.base.scheme == Scheme::Https;
        if downgrade && !endpoint.may_be_plain && !credentials.is_anonymous() {
            return Err(no_realm("would get the credentials without TLS"));
        }
        let server = self.token_server(&url, endpoint)?;
        let ask = match credentials.identity_token.is_empty() {
            false => refresh(url, service, scopes, credentials, &server),
            true => basic(url, service, scopes, credentials, &server, lasting),
        };
        let shown = ask.url.to_string();
        let method = method_name(&ask.method);
        let answer = self.transport.send(ask).await?;
        let status = answer.status;
        if !status.is_success() {
            let error = answer.into_error().await;
            let message = match &error {
                Error::Registry { message, .. } if status.as_u16() != 401 => message.clone(),
                _ if status.as_u16() == 401 => "incorrect username or password".to_owned(),
                other => other.to_string(),
            };
            return Err(Error::Token { method, url: shown, status: status.as_u16(), message });
        }
        let body = answer.bytes(TOKEN_BYTES_MAX).await?;
        let unusable = |what: String| Error::Answer { url: shown.clone(), what };
        let given: Given = serde_json::from_slice(&body)
            .map_err(|error| unusable(format!("the token server's answer is not valid: {error}")))?;
        let token = given.token.filter(|token| !token.is_empty()).or(given.access_token).unwrap_or_default();
        if token.is_empty() {
            return Err(unusable("authorization server did not include a token in the response".into()));
        }
        let authorization = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| unusable("the token is not valid in a header".into()))?;
        let time = given.expires_in.map_or(TOKEN_TIME, Duration::from_secs).max(TOKEN_TIME);
        let until =
            Instant::now().checked_add(time.min(Duration::from_secs(86_400)).saturating_sub(TOKEN_MARGIN));
        Ok(Granted { authorization, refresh_token: given.refresh_token.filter(|t| !t.is_empty()), until })
    }

    /// The token's server as an address: the registry's own TLS files if it is the same host.
    fn token_server(&self, url: &Url, endpoint: &Endpoint) -> Result<Endpoint, Error> {
        let tls = match url.host() == endpoint.base.host() {
            true => endpoint.tls.clone(),
            false => self.transport.settings().tls_files(&url.authority)?,
        };
        Ok(Endpoint { base: url.clone(), tls, headers: Vec::new(), ..endpoint.clone() })
    }
}

fn basic<'a>(
    url: Url,
    service: &str,
    scopes: &[String],
    credentials: &Credentials,
    endpoint: &'a Endpoint,
    lasting: bool,
) -> Ask<'a> {
    let mut url = url;
    if !service.is_empty() {
        url = url.with_query("service", service);
    }
    for scope in scopes {
        url = url.with_query("scope", scope);
    }
    if lasting {
        url = url.with_query("offline_token", "true").with_query("client_id", CLIENT_ID);
    }
    let mut authorization = None;
    if !credentials.username.is_empty() {
        url = url.with_query("account", &credentials.username);
        authorization = HeaderValue::from_str(&credentials.basic()).ok();
    }
    Ask {
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        payload: Payload::Empty,
        endpoint,
        authorization,
        retry: true,
    }
}

fn refresh<'a>(
    url: Url,
    service: &str,
    scopes: &[String],
    credentials: &Credentials,
    endpoint: &'a Endpoint,
) -> Ask<'a> {
    let form = [
        ("grant_type", "refresh_token"),
        ("service", service),
        ("client_id", CLIENT_ID),
        ("scope", &scopes.join(" ")),
        ("refresh_token", &credentials.identity_token),
    ]
    .map(|(key, value)| format!("{key}={}", encode(value)))
    .join("&");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let payload = Payload::Bytes(Bytes::from(form));
    Ask { method: Method::POST, url, headers, payload, endpoint, authorization: None, retry: false }
}

fn challenges(answer: &Answer) -> Vec<Challenge> {
    let values = answer.headers.get_all(WWW_AUTHENTICATE).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect()
}
