//! Media of a row: a URL or encoded data stays as it is, a local file is read and encoded.
//!
//! What a file is shows in its first bytes, not in its name: PNG, JPEG, WebP and GIF pictures, WAV and MP3 sound, MP4 and
//! WebM video. Files go into the body as they are; the reference decodes pictures and encodes them anew.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{Error, Media, Turn};

/// What a medium is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Audio,
    Video,
}

/// Whether a content needs no file: it is empty, a URL, or encoded already.
pub(crate) fn is_ready(content: &str) -> bool {
    content.is_empty()
        || content.starts_with("data:")
        || content.contains("://")
        || content.starts_with("wav,")
        || content.starts_with("mp3,")
}

/// Reads and encodes the files that a turn's media name. A relative path is one from the working directory, or else from
/// the directory of `file`, which has the row (or is that directory itself). Returns how many files were read.
pub(crate) fn embed(turn: &mut Turn, file: &Path) -> Result<u64, Error> {
    if turn.images.is_empty() && turn.audios.is_empty() && turn.videos.is_empty() {
        return Ok(0);
    }
    let read = all(&mut turn.images, Kind::Image, file)?
        + all(&mut turn.audios, Kind::Audio, file)?
        + all(&mut turn.videos, Kind::Video, file)?;
    turn.audio_seconds = turn.audios.iter().flat_map(|audio| &audio.contents).next().and_then(|clip| seconds(clip));
    Ok(read)
}

fn all(media: &mut [Media], kind: Kind, file: &Path) -> Result<u64, Error> {
    let mut read = 0;
    for content in media.iter_mut().flat_map(|m| &mut m.contents).filter(|content| !is_ready(content)) {
        let path = find(content, file);
        let failed = |why: String| {
            Error(format!(
                "{} {}: {why}",
                match kind {
                    Kind::Image => "image",
                    Kind::Audio => "audio",
                    Kind::Video => "video",
                },
                path.display()
            ))
        };
        let wrong = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => {
                failed("there is no such file (a URL or encoded data would be taken too)".into())
            }
            _ => failed(e.to_string()),
        };
        // A device or a pipe may have no end.
        if !std::fs::metadata(&path).map_err(wrong)?.is_file() {
            return Err(failed("this is no regular file".into()));
        }
        let bytes = std::fs::read(&path).map_err(wrong)?;
        *content = encode(&bytes, kind).map_err(|why| failed(why.into()))?;
        read += 1;
    }
    Ok(read)
}

fn find(content: &str, file: &Path) -> PathBuf {
    let path = PathBuf::from(content);
    if path.is_relative() && !path.exists() {
        let dir = if file.is_dir() { Some(file) } else { file.parent() };
        let beside = dir.map(|dir| dir.join(&path));
        if let Some(beside) = beside.filter(|beside| beside.exists()) {
            return beside;
        }
    }
    path
}

/// A picture as it stands in a body: `data:image/png;base64,…`, the bytes as they are.
///
/// # Errors
/// It is none that servers take; the text completes a sentence about it.
pub fn image_data_url(bytes: &[u8]) -> Result<String, &'static str> {
    encode(bytes, Kind::Image)
}

fn encode(bytes: &[u8], kind: Kind) -> Result<String, &'static str> {
    let mime = sniff(bytes);
    match (kind, mime) {
        (Kind::Image, Some(mime @ ("png" | "jpeg" | "webp" | "gif"))) => {
            Ok(format!("data:image/{mime};base64,{}", STANDARD.encode(bytes)))
        }
        (Kind::Audio, Some(format @ ("wav" | "mp3"))) => Ok(format!("{format},{}", STANDARD.encode(bytes))),
        (Kind::Video, Some(mime @ ("mp4" | "webm"))) => {
            Ok(format!("data:video/{mime};base64,{}", STANDARD.encode(bytes)))
        }
        (Kind::Image, _) => Err("neither PNG, JPEG, WebP nor GIF by its content"),
        (Kind::Audio, _) => Err("neither WAV nor MP3 by its content"),
        (Kind::Video, _) => Err("neither MP4 nor WebM by its content"),
    }
}

/// What the first bytes of a file say it is.
pub(crate) fn sniff(bytes: &[u8]) -> Option<&'static str> {
    let at = |from: usize, what: &[u8]| bytes.get(from..from + what.len()) == Some(what);
    if at(0, b"\x89PNG\r\n\x1a\n") {
        Some("png")
    } else if at(0, b"\xff\xd8\xff") {
        Some("jpeg")
    } else if at(0, b"GIF8") {
        Some("gif")
    } else if at(0, b"RIFF") && at(8, b"WEBP") {
        Some("webp")
    } else if at(0, b"RIFF") && at(8, b"WAVE") {
        Some("wav")
    } else if at(0, b"ID3") || bytes.first() == Some(&0xff) && bytes.get(1).is_some_and(|b| b & 0xe6 == 0xe2) {
        // A frame of MPEG layer III: eleven bits of sync, any version, layer 01.
        Some("mp3")
    } else if at(4, b"ftyp") {
        Some("mp4")
    } else if at(0, b"\x1a\x45\xdf\xa3") {
        Some("webm")
    } else {
        None
    }
}

/// Length of a WAV clip in seconds, from its header.
pub(crate) fn seconds(clip: &str) -> Option<f64> {
    let bytes = STANDARD.decode(clip.strip_prefix("wav,")?).ok()?;
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (mut at, mut rate) = (12usize, 0u32);
    loop {
        let (id, size) = (bytes.get(at..at + 4)?, word(at + 4)?);
        match id {
            b"fmt " => rate = word(at + 16)?,
            b"data" => {
                // A clip written to a pipe does not know its length; what is there counts.
                let there = (bytes.len() - (at + 8)) as u64;
                return (rate > 0).then(|| u64::from(size).min(there) as f64 / f64::from(rate));
            }
            _ => {}
        }
        at = at.checked_add(8)?.checked_add(size as usize)?.checked_add(size as usize % 2)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One channel of 16-bit silence.
    fn wav(samples: u32, rate: u32) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        bytes.extend(rate.to_le_bytes());
        bytes.extend((rate * 2).to_le_bytes());
        bytes.extend([2, 0, 16, 0]);
        bytes.extend(b"LIST\x03\0\0\0abc\0data");
        bytes.extend((samples * 2).to_le_bytes());
        bytes.extend(vec![0; samples as usize * 2]);
        bytes
    }

    #[test]
    fn files_are_known_by_content() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        put("a.txt", b"\x89PNG\r\n\x1a\nrest");
        put("b.png", b"\xff\xd8\xff\xe0rest");
        put("c", &wav(8000, 16000));
        put("d.mp3", b"\xff\xfb\x90\0");
        put("e", b"\0\0\0\x18ftypmp42");
        put("f", b"\x1a\x45\xdf\xa3");
        let media = |names: &[&str]| names.iter().map(|name| Media::from(*name)).collect::<Vec<_>>();
        let mut turn = Turn {
            images: media(&["a.txt", "b.png", "https://x/y.png", "data:image/png;base64,AA"]),
            audios: media(&["c", "d.mp3"]),
            videos: media(&["e", "f"]),
            ..Turn::default()
        };
        embed(&mut turn, &dir.path().join("rows.jsonl")).unwrap();
        let heads = |media: &[Media]| {
            media.iter().map(|m| m.contents[0].split("base64,").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(heads(&turn.images), ["data:image/png;", "data:image/jpeg;", "https://x/y.png", "data:image/png;"]);
        assert!(turn.audios[0].contents[0].starts_with("wav,UklGR") && turn.audios[1].contents[0].starts_with("mp3,"));
        assert_eq!(heads(&turn.videos), ["data:video/mp4;", "data:video/webm;"]);
        assert_eq!(turn.audio_seconds, Some(0.5));
        let wrong = |turn: &mut Turn| embed(turn, &dir.path().join("rows.jsonl")).unwrap_err().0;
        let said = wrong(&mut Turn { images: media(&["c"]), ..Turn::default() });
        assert!(said.ends_with("c: neither PNG, JPEG, WebP nor GIF by its content"), "{said}");
        let said = wrong(&mut Turn { videos: media(&["none"]), ..Turn::default() });
        assert!(said.starts_with("video none: there is no such file"), "{said}");
        let said = wrong(&mut Turn { images: media(&["/dev/zero"]), ..Turn::default() });
        assert_eq!(said, "image /dev/zero: this is no regular file");
    }

    #[test]
    fn cut_clips_have_no_length_and_do_not_panic() {
        let whole = wav(10, 8000);
        for cut in 0..whole.len() {
            seconds(&format!("wav,{}", STANDARD.encode(&whole[..cut])));
        }
        assert_eq!(seconds("wav,!"), None);
    }
}
