//! The public datasets that are known by name, and how the rows of each become requests.

/// How the rows of a set become requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A file in the format of that name.
    File { format: &'static str, name: &'static str },
    /// One column is the prompt.
    Column(&'static str),
    /// One column is the list of a conversation's prompts.
    Turns(&'static str),
    /// A question and a picture.
    Picture { text: &'static str, image: &'static str },
    /// An instruction, and the code it is about.
    Edit { code: &'static str, request: &'static str },
    /// A question, the answers to choose from, and a video.
    Choice { text: &'static str, choices: &'static str, video: &'static str },
    /// The first message of a person among a list of messages, and a picture.
    Opening { messages: &'static str, content: &'static str, image: &'static str },
    /// A clip to be written down.
    Sound(&'static str),
    /// Recorded calls of an agent, as spans.
    Spans { benchmarks: bool },
    /// Known by name only, and why.
    NotYet(&'static str),
}

/// A public dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    /// Its repository on the hub.
    pub(crate) repo: &'static str,
    /// Its usual subset; files of others are left aside.
    pub(crate) subset: Option<&'static str>,
    pub(crate) split: &'static str,
    pub(crate) shape: Shape,
}

const AGENTS: &str = "it is a weka_trace, a trace of agents";
pub(crate) const WEKA: &str = "semianalysis_cc_traces_weka";

const fn set(name: &'static str, repo: &'static str, split: &'static str, shape: Shape) -> Set {
    Set { name, repo, subset: None, split, shape }
}

const fn subset(set: Set, subset: &'static str) -> Set {
    Set { subset: Some(subset), ..set }
}

/// All that have a name.
pub(crate) const SETS: [Set; 30] = [
    set(
        "sharegpt",
        "anon8231489123/ShareGPT_Vicuna_unfiltered",
        "train",
        Shape::File { format: "sharegpt", name: "ShareGPT_V3_unfiltered_cleaned_split.json" },
    ),
    set("aimo", "AI-MO/NuminaMath-TIR", "train", Shape::Column("problem")),
    set("aimo_aime", "AI-MO/aimo-validation-aime", "train", Shape::Column("problem")),
    set("aimo_numina_cot", "AI-MO/NuminaMath-CoT", "train", Shape::Column("problem")),
    set("aimo_numina_1_5", "AI-MO/NuminaMath-1.5", "train", Shape::Column("problem")),
    set("mmstar", "Lin-Chen/MMStar", "val", Shape::Picture { text: "question", image: "image" }),
    set("mmvu", "yale-nlp/MMVU", "validation", Shape::Choice { text: "question", choices: "choices", video: "video" }),
    set(
        "vision_arena",
        "lmarena-ai/VisionArena-Chat",
        "train",
        Shape::Opening { messages: "conversation", content: "content", image: "images" },
    ),
    subset(
        set(
            "llava_onevision",
            "lmms-lab/LLaVA-OneVision-Data",
            "train",
            Shape::Opening { messages: "conversations", content: "value", image: "image" },
        ),
        "sharegpt4o",
    ),
    set("spec_bench", "hemingkx/Spec-Bench", "train", Shape::File { format: "spec_bench", name: "question.jsonl" }),
    subset(set("spec_al_gsm8k", "openai/gsm8k", "test", Shape::Column("question")), "main"),
    set("spec_al_math500", "HuggingFaceH4/MATH-500", "test", Shape::Column("problem")),
    set("spec_al_humaneval", "openai/openai_humaneval", "test", Shape::Column("prompt")),
    subset(set("spec_al_mbpp", "google-research-datasets/mbpp", "test", Shape::Column("text")), "full"),
    set("spec_al_mtbench", "HuggingFaceH4/mt_bench_prompts", "train", Shape::Turns("prompt")),
    set("instruct_coder", "likaixin/InstructCoder", "train", Shape::Column("instruction")),
    set("blazedit_5k", "vdaita/edit_5k_char", "train", Shape::Edit { code: "code", request: "change_request" }),
    set("blazedit_10k", "vdaita/edit_10k_char", "train", Shape::Edit { code: "code", request: "change_request" }),
    subset(set("librispeech", "openslr/librispeech_asr", "test", Shape::Sound("audio")), "clean"),
    subset(set("voxpopuli", "facebook/voxpopuli", "test", Shape::Sound("audio")), "en"),
    subset(set("gigaspeech", "speechcolab/gigaspeech", "test", Shape::Sound("audio")), "xs"),
    subset(set("ami", "edinburghcstr/ami", "test", Shape::Sound("audio")), "ihm"),
    subset(set("spgispeech", "kensho/spgispeech", "test", Shape::Sound("audio")), "test"),
    set("exgentic", "Exgentic/agent-llm-traces", "train", Shape::Spans { benchmarks: false }),
    set("exgentic_v2", "Exgentic/agent-llm-traces-v2", "train", Shape::Spans { benchmarks: true }),
    // Others of these begin with the same name.
    set(WEKA, "semianalysisai/cc-traces-weka-no-subagents-051826", "train", Shape::NotYet(AGENTS)),
    set("weka_hf", "", "train", Shape::NotYet(AGENTS)),
    set("tracelab", "", "train", Shape::NotYet(AGENTS)),
    set(
        "speed_bench",
        "nvidia/SPEED-Bench",
        "test",
        Shape::NotYet("it is exported to a local file first; give that with --input-file"),
    ),
    set("mt_bench", "lm-sys/FastChat", "train", Shape::File { format: "mt_bench", name: "question.jsonl" }),
];

/// Whether only a part of the set is usually taken.
pub(crate) fn is_large(number: u8) -> bool {
    let shape = SETS.get(usize::from(number)).map(|set| set.shape);
    matches!(shape, Some(Shape::Opening { .. } | Shape::Sound(_) | Shape::Spans { .. }))
}
