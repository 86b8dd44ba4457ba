//! The server, and how it is spoken to.

use super::{ServeConfig, grammar};
use crate::args;
use crate::redact;
use crate::refusal::Refusal;
use crate::values::{ContentType, EndpointKind, Reuse, UrlStrategy, name_of};
use maser_engine::clock::{Nanos, SECOND};
use maser_engine::endpoint::{Auth, BOUNDARY, Encoding, FollowUps, ResponseField};
use maser_engine::plan::Balance;
use serde_json::{Map, Value};
use std::fmt;
use std::io::Read;

/// Six hours, the reference's default.
const TIMEOUT: Nanos = 21_600 * SECOND;

/// Where the reference looks for a server.
const DEFAULT_URL: &str = "http://localhost:8000";

/// Headers that frame the request; a wrong one would break the connection, so they are the engine's alone.
const FRAMING: [&str; 3] = ["content-length", "transfer-encoding", "connection"];

/// The server, and how it is spoken to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Endpoint {
    /// The servers' base URLs; at least one.
    pub(crate) urls: Vec<Url>,
    /// Which of them a session goes to, if said.
    pub(crate) url_strategy: Option<UrlStrategy>,
    /// Their shares, one each, where that is weighted; else none.
    pub(crate) weights: Vec<u32>,
    /// Which requests share a connection, if said.
    pub(crate) reuse: Option<Reuse>,
    /// The API.
    pub(crate) kind: EndpointKind,
    /// `--custom-endpoint`, if given; [`Endpoint::target`] has the path to send to.
    pub(crate) custom_path: Option<String>,
    /// Ask for a stream.
    pub(crate) streaming: bool,
    /// The user's headers in order and the authorization, each name once.
    pub(crate) headers: Vec<Header>,
    /// Fields added to every body.
    pub(crate) extra: Map<String, Value>,
    /// What a request may take in all, nanoseconds.
    pub(crate) timeout: Nanos,
    /// Whether the timeout was given.
    pub(crate) timeout_given: bool,
    /// The key behind the authorization header, if given.
    pub(crate) api_key: Option<Secret>,
    /// Ask for the output length in `max_tokens`.
    pub(crate) use_legacy_max_tokens: bool,
    /// Ask for token counts with every event of a stream.
    pub(crate) per_chunk_usage: bool,
    /// How jobs are followed up.
    pub(crate) follow_ups: FollowUps,
    /// Source of the template that bodies are made from, where the type is `template`.
    pub(crate) template: Option<String>,
    /// Where in an answer its output stands, if said.
    pub(crate) response_field: Option<ResponseField>,
    /// Name of the header with the session's id, if not `X-Correlation-ID`.
    pub(crate) session_header: Option<String>,
}

/// A text that no message may show.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text itself.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(redact::REDACTED)
    }
}

/// A header of every request.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// As typed.
    pub(crate) name: String,
    /// As sent.
    pub(crate) value: String,
}

impl Header {
    /// The value as files and messages may show it.
    pub(crate) fn shown(&self) -> &str {
        redact::header_value(&self.name, &self.value)
    }

    fn checked(name: String, value: String) -> Result<Self, String> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(format!("{name:?} is no header name"));
        }
        if FRAMING.iter().any(|f| name.eq_ignore_ascii_case(f)) {
            return Err(format!("{name} is set by maser itself and cannot be given"));
        }
        if value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
            return Err(format!("the value of {name} has a control character in it"));
        }
        Ok(Self { name, value })
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.shown())
    }
}

/// An `http` URL without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Name or address; an IPv6 address without its brackets.
    pub(crate) host: String,
    /// 1 to 65535; 0 only until a mock server has its port.
    pub(crate) port: u16,
    /// Base path without its last `/`; empty for the root.
    pub(crate) path: String,
    /// What stands after a `?`.
    pub(crate) query: Option<String>,
    text: String,
}

impl Url {
    /// Reads a URL. A missing scheme is `http`, a missing port 80. The error completes a sentence about the URL.
    pub(crate) fn parse(raw: &str) -> Result<Self, String> {
        if raw.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("a URL has no spaces in it".into());
        }
        if !raw.is_ascii() {
            return Err("expected ASCII only; write other characters percent-encoded".into());
        }
        let text = if raw.contains("://") { raw.to_string() } else { format!("http://{raw}") };
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", ""));
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => {
                return Err("https is not supported yet by this version of maser, use http".into());
            }
            _ => {
                return Err(format!("{scheme:?} is no scheme for a server of models, use http"));
            }
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (location, query) = match rest.split_once('?') {
            Some((location, query)) => (location, Some(query.to_string())),
            None => (rest, None),
        };
        let (authority, path) = location.split_at(location.find('/').unwrap_or(location.len()));
        let (host, port) = authority_of(authority)?;
        let (host, path) = (host.to_string(), path.trim_end_matches('/').to_string());
        Ok(Self { host, port, path, query: query.filter(|q| !q.is_empty()), text })
    }

    /// The URL with its scheme, as typed.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Puts in the port that a mock server got.
    pub(crate) fn set_port(&mut self, port: u16) {
        self.port = port;
        self.text = format!("http://{}{}", self.host_header(), self.path);
    }

    /// The `Host` header: the host, in brackets if it is an IPv6 address, and the port unless it is 80.
    pub(crate) fn host_header(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        match self.port {
            80 => format!("{open}{}{close}", self.host),
            port => format!("{open}{}{close}:{port}", self.host),
        }
    }
}

fn authority_of(authority: &str) -> Result<(&str, u16), String> {
    if authority.contains('@') {
        return Err("credentials in a URL are not supported, use --api-key or --header".into());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("the address has no closing bracket")?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err("expected a colon and a port after the address".into()),
            };
            host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("{host:?} is no IPv6 address"))?;
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let name = |b: u8| b.is_ascii_alphanumeric() || b"-._~%:".contains(&b);
    if host.is_empty() {
        return Err("the URL names no host".into());
    }
    if !host.bytes().all(name) {
        return Err(format!("{host:?} is no host name"));
    }
    match port.map(str::parse::<u16>) {
        None => Ok((host, 80)),
        Some(Ok(port)) if port > 0 => Ok((host, port)),
        Some(_) => Err("expected a port between 1 and 65535".into()),
    }
}

impl Endpoint {
    /// Resolves the endpoint of `args`; of `mock` if the run has a mock server.
    pub(super) fn resolve(
        args: &args::Profile,
        mock: Option<&ServeConfig>,
        notes: &mut Vec<String>,
    ) -> Result<Self, Refusal> {
        let typed = &args.endpoint;
        let kind = typed.kind.unwrap_or(EndpointKind::Chat);
        let api_key = api_key(args, kind.auth(), notes)?;
        let streaming = typed.streaming && kind.can_stream();
        if typed.streaming && !streaming {
            notes.push(format!("--streaming: {} answers in one piece, so no stream is asked for", kind.name()));
        }
        if typed.per_chunk_usage {
            per_chunk_usage(typed, kind, streaming)?;
        }
        if typed.uuid_and_strip && kind != EndpointKind::Chat {
            return Err(Refusal::new(format!(
                "--uuid-and-strip: it needs --endpoint-type chat, {} has no keys for images",
                kind.name()
            )));
        }
        if typed.download_video_content && !kind.follows_up() {
            return Err(Refusal::new(format!(
                "--download-video-content: {} makes no videos, it needs --endpoint-type video_generation",
                kind.name()
            )));
        }
        content_type(typed.content_type, kind)?;
        let mut extra = extra(&args.input.extra_inputs)?;
        let template = template(kind, &mut extra)?;
        let response_field = response_field(kind, &mut extra)?;
        for field in kind.reserved_fields().iter().filter(|field| extra.contains_key(**field)) {
            notes.push(format!(
                "--extra-inputs {field}: {} makes that field of the input; what was given is not sent",
                kind.name()
            ));
        }
        if kind == EndpointKind::KserveInfer && args.prompts.osl.is_some() && !extra.contains_key("max_tokens") {
            notes.push(
                "--osl is not sent: a model may have no input for it; where it declares max_tokens, --extra-inputs \
                 '{\"max_tokens\": null}' sends each request's limit in it"
                    .into(),
            );
        }
        stored(kind, &extra, typed.use_server_token_count)?;
        let urls = urls(&typed.urls, mock)?;
        check_shares(typed, urls.len(), notes)?;
        Ok(Self {
            urls,
            url_strategy: typed.url_strategy,
            weights: typed.url_weights.clone(),
            reuse: typed.reuse,
            kind,
            custom_path: typed.path.as_deref().map(custom_path).transpose()?,
            streaming,
            headers: headers(&args.input.headers, api_key.as_ref(), kind.auth(), notes)?,
            extra,
            timeout: typed.timeout.unwrap_or(TIMEOUT),
            timeout_given: typed.timeout.is_some(),
            api_key,
            use_legacy_max_tokens: typed.use_legacy_max_tokens,
            per_chunk_usage: typed.per_chunk_usage,
            follow_ups: FollowUps { fetch: typed.download_video_content, ..FollowUps::default() },
            template,
            response_field,
            session_header: typed.session_header.clone().map(session_header).transpose()?,
        })
    }

    /// The `Content-Type` of requests.
    pub(crate) fn content_type(&self) -> String {
        match self.kind.encoding() {
            Encoding::Json => "application/json".into(),
            Encoding::Multipart => format!("multipart/form-data; boundary={BOUNDARY}"),
        }
    }

    /// Puts in the port that a mock server got.
    pub(crate) fn set_port(&mut self, port: u16) {
        self.urls.iter_mut().for_each(|url| url.set_port(port));
    }

    /// Which server a session goes to.
    pub(crate) fn balance(&self) -> Balance {
        match self.url_strategy.unwrap_or_default() {
            UrlStrategy::RoundRobin => Balance::RoundRobin,
            UrlStrategy::LeastInFlight => Balance::LeastInFlight,
            UrlStrategy::Weighted => Balance::Weighted(self.weights.clone()),
        }
    }

    /// Path and query of another `path` of the API below `url`, whose own path may be that of the requests.
    pub(crate) fn beside(&self, url: &Url, path: &str, model: &str) -> String {
        let requests = self.path(model);
        let requests = requests.split('?').next().unwrap_or_default().trim_matches('/');
        let base = match url.path.strip_suffix(requests) {
            Some(base) if !requests.is_empty() && base.ends_with('/') => base.trim_end_matches('/'),
            _ => &url.path,
        };
        let target = join(base, path);
        url.query.as_ref().map_or_else(|| target.clone(), |query| format!("{target}?{query}"))
    }

    /// Whether the path of all requests names the model.
    pub(super) fn names_model(&self) -> bool {
        self.custom_path.is_none() && self.kind.path(self.streaming).contains("{model}")
    }

    /// The requests' path below the base URL. One of the API that names a model names `model`.
    fn path(&self, model: &str) -> String {
        match &self.custom_path {
            Some(path) => path.clone(),
            None => self.kind.path(self.streaming).replace("{model}", &percent_encoded(model)),
        }
    }

    /// What the request line names: base path and endpoint path joined, and the query. An endpoint path that the base
    /// path ends with is not repeated, nor is `/v1`. A path of the API that names a model names `model`.
    pub(crate) fn target(&self, url: &Url, model: &str) -> String {
        let own = self.path(model);
        let own = own.as_str();
        let (own, own_query) = match own.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (own, None),
        };
        let mut target = join(&url.path, own);
        let queries = [url.query.as_deref(), own_query];
        for (n, query) in queries.into_iter().flatten().enumerate() {
            target.push(if n == 0 { '?' } else { '&' });
            target.push_str(query);
        }
        target
    }
}

fn join(base: &str, path: &str) -> String {
    let path = path.trim_start_matches('/');
    if path.is_empty() {
        return if base.is_empty() { "/".into() } else { base.into() };
    }
    if base.ends_with(&format!("/{path}")) {
        return base.into();
    }
    let path = match path.strip_prefix("v1/") {
        Some(rest) if base.ends_with("/v1") => rest,
        _ => path,
    };
    format!("{base}/{path}")
}

/// A segment of a path: what has a meaning of its own there, or none at all, is encoded.
fn percent_encoded(segment: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    segment.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The count with every event is an extension of chat streams, and is taken at its word.
fn per_chunk_usage(typed: &args::Endpoint, kind: EndpointKind, streaming: bool) -> Result<(), Refusal> {
    let why = if !typed.use_server_token_count {
        "it needs --use-server-token-count"
    } else if kind != EndpointKind::Chat {
        "it needs --endpoint-type chat"
    } else if !streaming {
        "it needs --streaming"
    } else {
        return Ok(());
    };
    Err(Refusal::new(format!("--per-chunk-usage: {why}")))
}

fn content_type(typed: Option<ContentType>, kind: EndpointKind) -> Result<(), Refusal> {
    match (typed, kind.encoding()) {
        (Some(ContentType::Json), Encoding::Multipart) => Err(Refusal::new(format!(
            "--request-content-type application/json: {} takes multipart/form-data only",
            kind.name()
        ))),
        (Some(ContentType::Multipart), Encoding::Json) => Err(Refusal::new(format!(
            "--request-content-type multipart/form-data: {} takes application/json only",
            kind.name()
        ))),
        _ => Ok(()),
    }
}

/// The template of the type that is made of one: a file's content, a known name, or the text itself.
fn template(kind: EndpointKind, extra: &mut Map<String, Value>) -> Result<Option<String>, Refusal> {
    if kind != EndpointKind::Template {
        return Ok(None);
    }
    let Some(given) = extra.shift_remove("payload_template") else {
        return Err(Refusal::new(
            "--endpoint-type template: it needs --extra-inputs payload_template:FILE, or the template itself as the value",
        ));
    };
    let text = match given {
        Value::String(text) => text,
        template @ (Value::Object(_) | Value::Array(_)) => template.to_string(),
        other => return Err(Refusal::new(format!("--extra-inputs payload_template: {other} is no template"))),
    };
    if text.eq_ignore_ascii_case("nv-embedqa") {
        return Ok(Some("{\"text\": {{ texts|tojson }}}".into()));
    }
    // An object, an array, or the begin of an expression: JSON is what a template must come to.
    if text.trim_start().starts_with(['{', '[']) {
        return Ok(Some(text));
    }
    std::fs::read_to_string(&text)
        .map(Some)
        .map_err(|e| Refusal::new(format!("--extra-inputs payload_template:{text}: the file cannot be read: {e}")))
}

/// The path to the output, for the types whose answers may be anything. `text` is the reference's word for finding it.
fn response_field(kind: EndpointKind, extra: &mut Map<String, Value>) -> Result<Option<ResponseField>, Refusal> {
    if !matches!(kind, EndpointKind::Template | EndpointKind::Raw) {
        return Ok(None);
    }
    match extra.shift_remove("response_field") {
        None => Ok(None),
        Some(Value::String(path)) if path == "text" => Ok(None),
        Some(Value::String(path)) => ResponseField::parse(&path)
            // A template's path is meant; a raw body's answer may have other forms beside the one that is named.
            .map(|field| Some(if kind == EndpointKind::Raw { field.or_anything() } else { field }))
            .map_err(|why| Refusal::new(format!("--extra-inputs response_field: {why}"))),
        Some(other) => Err(Refusal::new(format!("--extra-inputs response_field: {other} is no path"))),
    }
}

/// Turns that continue a stored answer leave the history to the server: only the server can count its tokens.
fn stored(kind: EndpointKind, extra: &Map<String, Value>, server_counts: bool) -> Result<(), Refusal> {
    let is_stored = extra.get("store").is_some_and(|store| matches!(store, Value::Bool(true)) || store == "true");
    match kind == EndpointKind::Responses && is_stored && !server_counts {
        true => Err(Refusal::new(
            "--extra-inputs store:true: later turns leave the history to the server, so tokens must be counted by it; add \
             --use-server-token-count",
        )),
        false => Ok(()),
    }
}

fn urls(typed: &[String], mock: Option<&ServeConfig>) -> Result<Vec<Url>, Refusal> {
    if let Some(mock) = mock {
        let text = format!("http://{}:1", bracketed(&mock.host));
        let mut url = Url::parse(&text).map_err(|why| Refusal::new(format!("--mock: host={}: {why}", mock.host)))?;
        url.set_port(mock.port);
        return Ok(vec![url]);
    }
    if typed.is_empty() {
        return Url::parse(DEFAULT_URL).map(|url| vec![url]).map_err(Refusal::new);
    }
    let wrong = |raw: &str, why: String| Refusal::new(format!("--url {}: {why}", redact::url(raw)));
    typed.iter().map(|raw| Url::parse(raw.trim()).map_err(|why| wrong(raw, why))).collect()
}

/// Shares go with the strategy that has them, one a server.
fn check_shares(typed: &args::Endpoint, servers: usize, notes: &mut Vec<String>) -> Result<(), Refusal> {
    let given = typed.url_weights.len();
    match (typed.url_strategy, given) {
        (Some(UrlStrategy::Weighted), 0) => {
            return Err(Refusal::new("--url-strategy weighted needs --url-weights: what share each --url has"));
        }
        (Some(UrlStrategy::Weighted), _) if given != servers => {
            return Err(Refusal::new(format!("--url-weights: there are {given} for the {servers} of --url")));
        }
        (Some(UrlStrategy::Weighted), _) | (_, 0) => {}
        (other, _) => {
            return Err(Refusal::new(format!(
                "--url-weights needs --url-strategy weighted; {} has no shares",
                name_of(other.unwrap_or_default())
            )));
        }
    }
    if let Some(strategy) = typed.url_strategy.filter(|_| servers == 1) {
        notes.push(format!("--url-strategy {} has no effect on a single server", name_of(strategy)));
    }
    Ok(())
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.into() }
}

fn custom_path(path: &str) -> Result<String, Refusal> {
    let wrong = |why: &str| Err(Refusal::new(format!("--custom-endpoint {}: {why}", redact::url(path))));
    if !path.starts_with('/') {
        return wrong("expected a path that begins with /");
    }
    if !path.bytes().all(|b| b.is_ascii_graphic()) || path.contains('#') {
        return wrong("a path has no spaces, no # and only ASCII characters in it");
    }
    Ok(path.into())
}

/// The most bytes of a file with a key.
const KEY_FILE: u64 = 64 << 10;

/// The key as given, of the file that has it, or of the environment: that one only goes to a server that the user named, in
/// the header that it is meant for, and with a note.
fn api_key(args: &args::Profile, auth: Auth, notes: &mut Vec<String>) -> Result<Option<Secret>, Refusal> {
    let typed = &args.endpoint;
    if let Some(given) = &typed.api_key {
        return key(given, "--api-key").map(Some);
    }
    if let (Some(path), Some(text)) = (&typed.api_key_file, &typed.api_key_of_file) {
        return key(text.trim(), &format!("--api-key-file {}", path.display())).map(Some);
    }
    let variable = typed.api_key_of_environment.as_deref().map(str::trim).filter(|key| !key.is_empty());
    let authorized = |item: &String| {
        let headers = grammar::headers(item).unwrap_or_default();
        headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"))
    };
    match variable {
        Some(given) if auth == Auth::Bearer && !typed.urls.is_empty() && !args.input.headers.iter().any(authorized) => {
            notes.push("using OPENAI_API_KEY of the environment as the API key".into());
            key(given, "OPENAI_API_KEY of the environment").map(Some)
        }
        _ => Ok(None),
    }
}

/// Reads the keys that were not typed, once: standard input can be read no second time. Returns them as secrets.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn read_keys(typed: &mut args::Endpoint) -> Result<redact::Secrets, Refusal> {
    typed.api_key_of_environment = std::env::var("OPENAI_API_KEY").ok();
    if let Some(path) = &typed.api_key_file {
        let mut text = String::new();
        let read = match path.to_str() {
            Some("-") => std::io::stdin().lock().take(KEY_FILE).read_to_string(&mut text),
            _ => std::fs::File::open(path).and_then(|file| file.take(KEY_FILE).read_to_string(&mut text)),
        };
        read.map_err(|e| Refusal::new(format!("--api-key-file {}: the key cannot be read: {e}", path.display())))?;
        typed.api_key_of_file = Some(text);
    }
    let mut secrets = redact::Secrets::default();
    [&typed.api_key_of_file, &typed.api_key_of_environment].into_iter().flatten().for_each(|key| secrets.add(key));
    Ok(secrets)
}

fn key(text: &str, from: &str) -> Result<Secret, Refusal> {
    // Never echoed, however wrong it is.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Refusal::new(format!(
            "{from}: expected a key without spaces or other characters that a header cannot carry"
        )));
    }
    Ok(Secret(text.into()))
}

fn session_header(name: String) -> Result<String, Refusal> {
    Header::checked(name, String::new())
        .map(|header| header.name)
        .map_err(|why| Refusal::new(format!("--session-header: {why}")))
}

fn headers(
    items: &[String],
    api_key: Option<&Secret>,
    auth: Auth,
    notes: &mut Vec<String>,
) -> Result<Vec<Header>, Refusal> {
    let mut all: Vec<Header> = Vec::new();
    let wrong = |why: String| Refusal::new(format!("--header: {why}"));
    for item in items {
        for (name, value) in grammar::headers(item).map_err(wrong)? {
            let header = Header::checked(name, value).map_err(wrong)?;
            all.retain(|h| !h.name.eq_ignore_ascii_case(&header.name));
            all.push(header);
        }
    }
    let (name, version) = match auth {
        Auth::Bearer => ("Authorization", None),
        Auth::ApiKey => ("x-api-key", Some(("anthropic-version", "2023-06-01"))),
    };
    if let Some(key) = api_key {
        let before = all.len();
        all.retain(|h| !h.name.eq_ignore_ascii_case(name));
        if all.len() < before {
            notes.push(format!("--api-key replaces the {name} header given with --header"));
        }
        let value = match auth {
            Auth::Bearer => format!("Bearer {}", key.expose()),
            Auth::ApiKey => key.expose().to_owned(),
        };
        all.push(Header { name: name.into(), value });
    }
    if let Some((name, value)) = version
        && !all.iter().any(|h| h.name.eq_ignore_ascii_case(name))
    {
        all.push(Header { name: name.into(), value: value.into() });
    }
    Ok(all)
}

fn extra(items: &[String]) -> Result<Map<String, Value>, Refusal> {
    let mut all = Map::new();
    for item in items {
        let fields = grammar::fields(item).map_err(|why| Refusal::new(format!("--extra-inputs: {why}")))?;
        all.extend(fields);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused() {
        let read = |raw: &str| Url::parse(raw).map(|u| (u.host_header(), u.path, u.query));
        let ok = |h: &str, p: &str, q: Option<&str>| Ok((h.into(), p.into(), q.map(Into::into)));
        assert_eq!(read("http://localhost:8000"), ok("localhost:8000", "", None));
        assert_eq!(read("gpu-1:9/v1/"), ok("gpu-1:9", "/v1", None));
        assert_eq!(read("HTTP://h/a?x=1#f"), ok("h", "/a", Some("x=1")));
        assert_eq!(read("http://[::1]:8080/"), ok("[::1]:8080", "", None));
        assert_eq!(read("http://h?x=1"), ok("h", "", Some("x=1")));
        for raw in [
            "",
            "http://",
            "http://:80",
            "http://h:0",
            "http://h:65536",
            "http://h:",
            "http://h:8x",
            "http://[::1",
            "http://[zz]:1",
            "http://[::1]x",
            "ftp://h",
            "mailto:x",
            "https://h",
            "http://u:p@h",
            "http://h h",
            "http://h\r\nX: y",
            "http://hé",
            "http://a,b",
        ] {
            assert!(Url::parse(raw).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn paths_join_without_repeating_themselves() {
        let chat = EndpointKind::Chat.path(false);
        for (base, path, want) in [
            ("", chat, "/v1/chat/completions"),
            ("/v1", chat, "/v1/chat/completions"),
            ("/proxy/v1", chat, "/proxy/v1/chat/completions"),
            ("/v1/chat/completions", chat, "/v1/chat/completions"),
            ("/proxy", chat, "/proxy/v1/chat/completions"),
            ("/xv1", chat, "/xv1/v1/chat/completions"),
            ("", "/", "/"),
            ("/base", "/", "/base"),
            ("", "/generate", "/generate"),
        ] {
            assert_eq!(join(base, path), want, "{base} + {path}");
        }
    }

    #[test]
    fn headers_that_would_break_a_request_are_refused() {
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("A\r\n", "x"),
            ("A", "x\r\nB: y"),
            ("Content-Length", "3"),
            ("transfer-encoding", "chunked"),
        ] {
            assert!(Header::checked(name.into(), value.into()).is_err(), "{name:?} {value:?}");
        }
        assert!(Header::checked("X-Ü".into(), "x".into()).is_err());
        assert!(Header::checked("X-A".into(), "ü\tb".into()).is_ok());
    }

    #[test]
    fn secrets_do_not_show() {
        let all = headers(
            &["Cookie: abc".into(), "X-Plain: seen".into()],
            Some(&Secret("hidden".into())),
            Auth::Bearer,
            &mut Vec::new(),
        );
        let text = format!("{all:?} {:?}", Secret("hidden".into()));
        assert!(text.contains("seen") && !text.contains("abc") && !text.contains("hidden"), "{text}");
    }
}
