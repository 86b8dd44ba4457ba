//! OpenAI audio transcription: a form with a clip.

use super::content::Audio;
use super::found::{Want, read_wanted};
use super::multipart::{Form, decode_base64};
use super::{Encoding, Facts, Options, Reading, Splice, Unfit, Unreadable, content};
use maser_datasets::Conversation;

pub(super) const FACTS: Facts = Facts {
    name: "audio_transcription",
    path: "/v1/audio/transcriptions",
    tokenizes_input: false,
    media: [false, true, false],
    title: "Audio Transcription Metrics",
    encoding: Encoding::Multipart,
    reserved: &["file"],
    body,
    read,
    ..Facts::PLAIN
};

/// The file `file`, then `model` and the extras (language, response_format, …).
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let unfit = |what: &str| {
        Unfit::new(format!(
            "--endpoint-type audio_transcription: a turn of session {} has {what}",
            conversation.session_id
        ))
    };
    let clip = content::contents(&turn.audios).next().ok_or_else(|| unfit("no audio"))?;
    let clip = Audio::parse(clip)?;
    let bytes = decode_base64(clip.data).ok_or_else(|| unfit("a clip that is no base64"))?;
    let mut form = Form::begin(out);
    form.file("file", &format!("audio.{}", clip.format), content_type(clip.format), &bytes);
    form.fields(
        vec![("model", turn.model.as_ref().unwrap_or(&options.model).as_str().into())],
        options,
        turn,
        FACTS.reserved,
    );
    form.end();
    Ok(Splice::NONE)
}

fn content_type(format: &str) -> &'static str {
    match format {
        "wav" => "audio/wav",
        "mp3" | "mpga" | "mpeg" => "audio/mpeg",
        "flac" => "audio/flac",
        "ogg" => "audio/ogg",
        "m4a" | "mp4" => "audio/mp4",
        "webm" => "audio/webm",
        _ => "application/octet-stream",
    }
}

/// The transcript is `text`, or the whole body where the extras ask for a format that is not JSON.
fn read<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    read_wanted(json, &Want { texts: &[b"text"], plain: true, ..Want::NOTHING }, reading)
}
