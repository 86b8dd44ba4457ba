//! What goes wrong, in the words of each vendor.

use super::http::{JSON, Response};
use serde_json::{Value, json};

/// What the faults that fail say.
pub(super) const SERVER_ERROR: &str = "the mock server was told to fail here";
const LIMITED: &str = "the mock server was told to limit the rate here";

/// Whose form an error takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vendor {
    /// OpenAI's, as vLLM gives it.
    OpenAi,
    Anthropic,
    /// Text Generation Inference and Text Embeddings Inference.
    HuggingFace,
    Cohere,
    /// NVIDIA's retrieval services.
    Nim,
    /// KServe v2 and Triton.
    KServe,
    /// FastAPI without a form of its own.
    Detail,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) why: String,
}

impl Refused {
    pub(super) fn bad(why: impl Into<String>) -> Self {
        Self { status: 400, why: why.into() }
    }

    pub(super) fn missing(why: impl Into<String>) -> Self {
        Self { status: 404, why: why.into() }
    }
}

impl From<crate::wire::json::Unreadable> for Refused {
    fn from(broken: crate::wire::json::Unreadable) -> Self {
        Self::bad(format!("the body is {broken}"))
    }
}

impl Vendor {
    /// The body of an error.
    pub(super) fn object(self, status: u16, why: &str) -> Value {
        let kind = self.kind(status);
        match self {
            Self::OpenAi => json!({"error": {"message": why, "type": kind, "param": null, "code": status}}),
            Self::Anthropic => json!({"type": "error", "error": {"type": kind, "message": why}}),
            Self::HuggingFace => json!({"error": why, "error_type": kind}),
            Self::Cohere => json!({"message": why}),
            Self::Nim => json!({"object": "error", "message": why, "detail": {}, "type": kind}),
            Self::KServe => json!({"error": why}),
            Self::Detail => json!({"detail": why}),
        }
    }

    /// The class of error that goes with a status.
    fn kind(self, status: u16) -> &'static str {
        match (self, status) {
            (Self::Anthropic, 404) => "not_found_error",
            (Self::Anthropic, 413) => "request_too_large",
            (Self::Anthropic, 429) => "rate_limit_error",
            (Self::Anthropic, 500..) => "api_error",
            (Self::HuggingFace, 429) => "overloaded",
            (Self::HuggingFace, 500..) => "generation",
            (Self::HuggingFace, _) => "validation",
            (Self::Nim, 429) => "rate_limit_error",
            (Self::Nim, 500..) => "internal_server_error",
            (Self::Anthropic | Self::Nim, _) => "invalid_request_error",
            (_, 404) => "NotFoundError",
            (_, 429) => "RateLimitError",
            (_, 400..=499) => "BadRequestError",
            _ => "InternalServerError",
        }
    }

    /// Appends an error. `fields` are further header lines, each with its end.
    pub(super) fn put(self, out: &mut Vec<u8>, refused: &Refused, fields: &str, keep: bool, only_head: bool) {
        let body = self.object(refused.status, &refused.why).to_string();
        let response = Response { status: refused.status, content_type: JSON, fields, body: body.as_bytes() };
        response.put(out, keep, only_head);
    }

    /// Appends the answer of the fault `Http500`.
    pub(super) fn failed(self, out: &mut Vec<u8>, keep: bool) {
        self.put(out, &Refused { status: 500, why: SERVER_ERROR.into() }, "", keep, false);
    }

    /// Appends the answer of the fault `Http429`.
    pub(super) fn limited(self, out: &mut Vec<u8>, keep: bool) {
        self.put(out, &Refused { status: 429, why: LIMITED.into() }, "Retry-After: 1\r\n", keep, false);
    }
}
