//! Images, audio clips and videos, generated or read from files, as the strings that request bodies carry.

pub(crate) mod attachment;
pub mod audio;
mod ffmpeg;
pub mod images;
pub mod video;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// `data:<mime>;base64,<data>`.
fn data_url(mime: &str, bytes: &[u8]) -> String {
    let mut url = String::with_capacity(mime.len() + 13 + bytes.len().div_ceil(3) * 4);
    url.push_str("data:");
    url.push_str(mime);
    url.push_str(";base64,");
    STANDARD.encode_string(bytes, &mut url);
    url
}
