//! Generated data as `maser profile` sends it: what the options ask for stands in `inputs.json`.

use serde_json::Value;
use std::process::Command;

/// The payloads of a run against the built-in server, session by session.
fn sessions(words: &[&str]) -> Vec<Vec<Value>> {
    let dir = tempfile::tempdir().unwrap();
    let mut maser = Command::new(env!("CARGO_BIN_EXE_maser"));
    let shape =
        ["profile", "--mock=ttft=0,itl=0", "--request-count", "4", "--random-seed", "3", "--osl", "2", "--ui", "none"];
    let output = maser.args(shape).args(words).arg("--artifact-dir").arg(dir.path()).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let inputs = std::fs::read(dir.path().join("inputs.json")).unwrap();
    let inputs: Value = serde_json::from_slice(&inputs).unwrap();
    let mut sessions: Vec<(Value, Vec<Value>)> = Vec::new();
    for entry in inputs["data"].as_array().unwrap() {
        let payloads = entry["payloads"].as_array().unwrap().clone();
        match sessions.last_mut().filter(|(id, _)| *id == entry["session_id"]) {
            Some((_, known)) => known.extend(payloads),
            None => sessions.push((entry["session_id"].clone(), payloads)),
        }
    }
    sessions.into_iter().map(|(_, payloads)| payloads).collect()
}

#[test]
fn conversations_have_their_turns_and_their_head() {
    let words = ["--conversation-turn-mean", "2", "--user-context-prompt-length", "5", "--system-prompt", "Be kind."];
    for payloads in sessions(&words) {
        assert_eq!(payloads.len(), 2);
        for payload in &payloads {
            let messages = payload["messages"].as_array().unwrap();
            let roles: Vec<&str> = messages.iter().filter_map(|m| m["role"].as_str()).collect();
            assert_eq!(roles, ["system", "user", "user"]);
            assert_eq!(messages[0]["content"], "Be kind.");
            assert_eq!(messages[1], payloads[0]["messages"][1]);
        }
    }
}

#[test]
fn rankings_batches_and_images_reach_the_body() {
    let ranking = &sessions(&["--endpoint-type", "nim_rankings", "--rankings-passages-mean", "3"])[0][0];
    assert_eq!(ranking["passages"].as_array().map(Vec::len), Some(3));
    let batch = &sessions(&["--endpoint-type", "embeddings", "-b", "3", "--isl", "9"])[0][0];
    assert_eq!(batch["input"].as_array().map(Vec::len), Some(3));
    let picture = &sessions(&["--image-width-mean", "8", "--image-height-mean", "8", "--image-format", "png"])[0][0];
    let url = picture["messages"][0]["content"][1]["image_url"]["url"].as_str().unwrap();
    assert!(url.starts_with("data:image/png;base64,"), "{url}");
}
