//! OpenAI's videos: submitted, polled until done, downloaded. A video takes the time that an answer of as many tokens as
//! it has frames would take.

use super::fields::Fields;
use super::{Ready, Request};
use crate::serve::errors::Refused;
use crate::serve::multipart::Form;
use crate::serve::world::{Video, World};
use serde_json::{Value, json};

/// Frames of a second where the request does not say.
const FRAMES_PER_SECOND: u32 = 24;

/// Most frames of a video: ten minutes.
const MAX_FRAMES: u32 = 600 * FRAMES_PER_SECOND;

/// Bytes of a downloaded video for each of its frames.
const FRAME_BYTES: usize = 256;

/// Memory that the model is said to take, and each frame beside it, megabytes.
const MODEL_MB: f64 = 4096.0;
const FRAME_MB: f64 = 8.5;

/// `POST /v1/videos`, a form or JSON.
pub(in crate::serve) fn submit(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let is_json = request.content_type.trim_start().starts_with("application/json");
    let wanted = if is_json { Wanted::of_json(request, world)? } else { Wanted::of_form(request, world)? };
    let frames = match (wanted.frames, wanted.seconds) {
        (Some(frames), _) => frames,
        (None, Some(seconds)) => seconds.saturating_mul(wanted.fps.unwrap_or(FRAMES_PER_SECOND)).min(MAX_FRAMES),
        (None, None) => world.config.osl.min(MAX_FRAMES),
    };
    let id = format!("video_{}", world.id(request.number));
    let object = json!({
        "id": id, "object": "video", "model": world.config.models[wanted.model], "status": "queued", "progress": 0,
        "created_at": request.created, "size": wanted.size,
        "seconds": wanted.seconds.unwrap_or(frames.div_ceil(FRAMES_PER_SECOND)).to_string(), "quality": "standard",
    });
    let itl = world.config.itl.saturating_mul(u64::from(frames.saturating_sub(1)));
    let done = request.now.after(world.config.ttft).after(itl);
    world.videos.keep(id, Video { begun: request.now, done, frames, object: object.clone() });
    Ok(Ready { at_once: true, ..Ready::json(&object, super::tokens_of(wanted.prompt)) })
}

struct Wanted {
    model: usize,
    /// Bytes of the prompt.
    prompt: usize,
    size: String,
    seconds: Option<u32>,
    fps: Option<u32>,
    frames: Option<u32>,
}

impl Wanted {
    fn of_json(request: &Request<'_>, world: &World) -> Result<Self, Refused> {
        let fields = Fields::read(request)?;
        // Clients send seconds as text and as a number.
        let seconds = match fields.get("seconds") {
            Some(Value::String(text)) => Some(text.parse().map_err(|_| Refused::bad("seconds is not a whole number"))?),
            _ => fields.count("seconds", MAX_FRAMES)?,
        };
        Ok(Self {
            model: fields.model(world)?,
            prompt: fields.need_text("prompt")?.len(),
            size: fields.text("size")?.unwrap_or("1280x720").into(),
            seconds,
            fps: fields.count("fps", MAX_FRAMES)?,
            frames: fields.count("num_frames", MAX_FRAMES)?,
        })
    }

    fn of_form(request: &Request<'_>, world: &World) -> Result<Self, Refused> {
        let form = Form::read(request)?;
        Ok(Self {
            model: form.model(world)?,
            prompt: form.need_text("prompt")?.len(),
            size: form.text("size")?.unwrap_or("1280x720").into(),
            seconds: form.count("seconds", MAX_FRAMES)?,
            fps: form.count("fps", MAX_FRAMES)?,
            frames: form.count("num_frames", MAX_FRAMES)?,
        })
    }
}

fn video<'a>(request: &Request<'_>, world: &'a World) -> Result<&'a Video, Refused> {
    let missing = || Refused::missing(format!("the video '{}' does not exist", request.name));
    world.videos.get(request.name).ok_or_else(missing)
}

/// `GET /v1/videos/ID`.
pub(in crate::serve) fn poll(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let video = video(request, world)?;
    let mut object = video.object.clone();
    let is_done = request.now >= video.done;
    let (passed, all) = (request.now.since(video.begun), video.done.since(video.begun));
    if is_done {
        let seconds = all as f64 / 1e9;
        object["status"] = json!("completed");
        object["progress"] = json!(100);
        object["completed_at"] = json!(request.created);
        object["expires_at"] = json!(request.created + 3600);
        // These two as SGLang has them.
        object["inference_time_s"] = json!(seconds);
        object["peak_memory_mb"] = json!(MODEL_MB + FRAME_MB * f64::from(video.frames));
    } else {
        object["status"] = json!("in_progress");
        object["progress"] = json!(passed.saturating_mul(100) / all.max(1));
    }
    Ok(Ready::json(&object, 0))
}

/// `GET /v1/videos/ID/content`: the frame of an MP4 file with nothing to play in it.
pub(in crate::serve) fn content(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let video = video(request, world)?;
    if request.now < video.done {
        return Err(Refused::missing(format!("the video '{}' is not ready", request.name)));
    }
    let mut file = Vec::new();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        file.extend_from_slice(&(data.len() as u32 + 8).to_be_bytes());
        file.extend_from_slice(kind);
        file.extend_from_slice(data);
    };
    chunk(b"ftyp", b"isom\0\0\x02\0isomiso2mp41");
    chunk(b"mdat", &vec![0; video.frames as usize * FRAME_BYTES]);
    Ok(Ready::bytes("video/mp4", file, 0))
}
