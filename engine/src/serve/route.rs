//! Which path is answered how: a row for each.

use super::dialect::audio::Transcriptions;
use super::dialect::chat::Chat;
use super::dialect::completions::Completions;
use super::dialect::generate::Generate;
use super::dialect::kserve::{self, KServe};
use super::dialect::messages::{self, Messages};
use super::dialect::responses::Responses;
use super::dialect::solido::Solido;
use super::dialect::{Dialect, Ready, Request, embeddings, images, rankings, retrieval, service, videos};
use super::errors::{Refused, Vendor};
use super::world::World;

/// An answer that is made at once.
type Make = fn(&Request<'_>, &mut World) -> Result<Ready, Refused>;

/// How a path is answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// With tokens, each in its time.
    Tokens(&'static dyn Dialect),
    /// With what was made at once, in the time of the first token.
    Made(Make),
    /// At once, and never with a fault: what is no inference.
    Told(Make),
}

/// A path.
#[derive(Debug)]
pub(super) struct Place {
    method: &'static str,
    /// `*` in it stands for a name: for one with slashes only where something follows. In front of `/v1` it is also found without that.
    path: &'static str,
    /// In whose form its errors are.
    pub(super) vendor: Vendor,
    pub(super) way: Way,
}

const fn post(path: &'static str, vendor: Vendor, way: Way) -> Place {
    Place { method: "POST", path, vendor, way }
}

const fn get(path: &'static str, vendor: Vendor, make: Make) -> Place {
    Place { method: "GET", path, vendor, way: Way::Told(make) }
}

use Vendor::{Anthropic, Cohere, Detail, HuggingFace, KServe as Triton, Nim, OpenAi};
use Way::{Made, Tokens, Told};

/// All paths, the busiest first.
pub(super) static PLACES: [Place; 34] = [
    post("/v1/chat/completions", OpenAi, Tokens(&Chat)),
    post("/v1/completions", OpenAi, Tokens(&Completions)),
    post("/v1/embeddings", OpenAi, Made(embeddings::embeddings)),
    post("/embed", HuggingFace, Made(embeddings::tei)),
    post("/v1/messages", Anthropic, Tokens(&Messages)),
    post("/v1/messages/count_tokens", Anthropic, Told(messages::count)),
    post("/v1/responses", OpenAi, Tokens(&Responses)),
    post("/v1/ranking", Nim, Made(rankings::nim)),
    post("/v2/rerank", Cohere, Made(rankings::cohere)),
    post("/v1/rerank", HuggingFace, Made(rankings::tei)),
    post("/generate", HuggingFace, Tokens(&Generate(false))),
    post("/generate_stream", HuggingFace, Tokens(&Generate(true))),
    post("/v1/images/generations", OpenAi, Made(images::generations)),
    post("/v1/images/edits", OpenAi, Made(images::edits)),
    post("/v1/audio/transcriptions", OpenAi, Tokens(&Transcriptions)),
    post("/v1/videos", OpenAi, Made(videos::submit)),
    get("/v1/videos/*", OpenAi, videos::poll),
    get("/v1/videos/*/content", OpenAi, videos::content),
    post("/v1/infer", Nim, Made(retrieval::infer)),
    post("/rag/api/prompt", Detail, Tokens(&Solido)),
    post("/v2/models/*/infer", Triton, Tokens(&KServe::Infer)),
    post("/v2/models/*/generate", Triton, Tokens(&KServe::Generate)),
    post("/v2/models/*/generate_stream", Triton, Tokens(&KServe::GenerateStream)),
    get("/v2/models/*", Triton, kserve::model),
    get("/v2/models/*/ready", Triton, kserve::ready),
    get("/v2/health/ready", Triton, kserve::health),
    get("/v2/health/live", Triton, kserve::health),
    get("/v2", Triton, kserve::server),
    get("/v1/models", OpenAi, service::models),
    get("/v1/health", OpenAi, service::nothing),
    get("/metrics", Detail, service::metrics),
    post("/reset_prefix_cache", Detail, Told(service::nothing)),
    post("/start_profile", Detail, Told(service::nothing)),
    post("/stop_profile", Detail, Told(service::nothing)),
];

/// Where a request goes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Route {
    /// To the place of this index.
    At(usize),
    /// The path of this index exists, for its method.
    Allows(usize),
    #[default]
    Unknown,
}

impl Route {
    /// The route of a request line. The query does not matter.
    pub(super) fn of(method: &str, target: &str) -> Self {
        let path = path(target);
        let mut found = Self::Unknown;
        for (index, place) in PLACES.iter().enumerate() {
            if place.is_at(path) {
                if place.method == method {
                    return Self::At(index);
                }
                found = Self::Allows(index);
            }
        }
        found
    }

    /// The place, if there is any at the path.
    pub(super) fn place(self) -> Option<&'static Place> {
        match self {
            Self::At(index) | Self::Allows(index) => PLACES.get(index),
            Self::Unknown => None,
        }
    }
}

fn path(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or_default()
}

impl Place {
    /// The method that the path takes.
    pub(super) fn method(&self) -> &'static str {
        self.method
    }

    /// The place leaves a name in its path open.
    pub(super) fn is_open(&self) -> bool {
        self.path.contains('*')
    }

    /// The name in `target` that the path leaves open.
    pub(super) fn name<'a>(&self, target: &'a str) -> &'a str {
        let Some((before, after)) = self.path.split_once('*') else { return "" };
        let target = path(target);
        let rest = target.strip_prefix(before).or_else(|| target.strip_prefix(before.strip_prefix("/v1")?));
        rest.and_then(|rest| rest.strip_suffix(after)).unwrap_or_default()
    }

    fn is_at(&self, path: &str) -> bool {
        let is = |own: &str| match own.split_once('*') {
            None => own == path,
            Some((before, after)) => {
                let name = path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                name.is_some_and(|name| !(name.is_empty() || after.is_empty() && name.contains('/')))
            }
        };
        is(self.path) || self.path.strip_prefix("/v1").is_some_and(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_ignore_the_query_and_know_their_methods() {
        let table = [
            ("POST", "/v1/chat/completions?x=1", "POST /v1/chat/completions"),
            ("POST", "/chat/completions", "POST /v1/chat/completions"),
            ("GET", "/v1/models", "GET /v1/models"),
            ("GET", "/health?", "GET /v1/health"),
            ("GET", "/v1/chat/completions", "takes POST"),
            ("POST", "/health", "takes GET"),
            ("GET", "/metrics", "GET /metrics"),
            ("GET", "/v1/metrics", "nothing"),
            ("GET", "/v1/models/", "nothing"),
            ("GET", "/v1/", "nothing"),
            ("GET", "", "nothing"),
            ("POST", "/v2/models/m/infer", "POST /v2/models/*/infer"),
            ("POST", "/v2/models//infer", "nothing"),
            ("POST", "/v2/models/a/b/infer", "POST /v2/models/*/infer"),
            ("GET", "/v2/models/a/b", "nothing"),
            ("GET", "/v2/models/m", "GET /v2/models/*"),
            ("GET", "/v2/models/m/ready", "GET /v2/models/*/ready"),
            ("GET", "/videos/v/content", "GET /v1/videos/*/content"),
            ("POST", "/rerank", "POST /v1/rerank"),
            ("POST", "/generate", "POST /generate"),
        ];
        for (method, target, want) in table {
            let route = Route::of(method, target);
            let found = match (route, route.place()) {
                (Route::At(_), Some(place)) => format!("{} {}", place.method, place.path),
                (Route::Allows(_), Some(place)) => format!("takes {}", place.method),
                _ => "nothing".into(),
            };
            assert_eq!(found, want, "{method} {target}");
        }
    }

    #[test]
    fn the_open_name_is_found_under_either_path() {
        for (target, name) in [
            ("/v1/videos/abc?x=/y", "abc"),
            ("/videos/abc/content", "abc"),
            ("/v2/models/m-1.5/generate_stream", "m-1.5"),
            ("/v2/models/a/b/infer?x=1", "a/b"),
            ("/health", ""),
        ] {
            let method = if target.contains("models") { "POST" } else { "GET" };
            let place = Route::of(method, target).place().unwrap();
            assert_eq!(place.name(target), name);
            assert_eq!(place.is_open(), !name.is_empty());
        }
    }

    #[test]
    fn no_path_stands_in_two_rows() {
        for (index, place) in PLACES.iter().enumerate() {
            let concrete = place.path.replace('*', "some-name");
            assert!(matches!(Route::of(place.method, &concrete), Route::At(found) if found == index), "{}", place.path);
        }
    }
}
